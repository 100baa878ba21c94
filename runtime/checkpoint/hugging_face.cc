#include "runtime/checkpoint/hugging_face.h"

#include <fmt/format.h>

namespace trireme {
namespace {

using Tensors = std::vector<HuggingFaceTensor>;

void add_gpt2_layer(Tensors& tensors, int layer) {
  const auto ours = fmt::format("layers.{}.", layer);
  const auto theirs = fmt::format("transformer.h.{}.", layer);
  const auto add = [&](const char* name, std::vector<std::string> parts, bool transposed) {
    for (auto& part : parts) part.insert(0, ours);
    tensors.push_back({theirs + name, std::move(parts), transposed});
  };
  add("ln_1.weight", {"norm1.weight"}, false);
  add("ln_1.bias", {"norm1.bias"}, false);
  add("attn.c_attn.weight",
      {"attention.query.weight", "attention.key.weight", "attention.value.weight"}, true);
  add("attn.c_attn.bias", {"attention.query.bias", "attention.key.bias", "attention.value.bias"},
      false);
  add("attn.c_proj.weight", {"attention.output.weight"}, true);
  add("attn.c_proj.bias", {"attention.output.bias"}, false);
  add("ln_2.weight", {"norm2.weight"}, false);
  add("ln_2.bias", {"norm2.bias"}, false);
  add("mlp.c_fc.weight", {"mlp.up.weight"}, true);
  add("mlp.c_fc.bias", {"mlp.up.bias"}, false);
  add("mlp.c_proj.weight", {"mlp.down.weight"}, true);
  add("mlp.c_proj.bias", {"mlp.down.bias"}, false);
}

void add_llama_layer(Tensors& tensors, int layer) {
  const auto ours = fmt::format("layers.{}.", layer);
  const auto theirs = fmt::format("model.layers.{}.", layer);
  const auto add = [&](const char* name, const char* part) {
    tensors.push_back({theirs + name, {ours + part}, false});
  };
  add("input_layernorm.weight", "norm1.weight");
  add("self_attn.q_proj.weight", "attention.query.weight");
  add("self_attn.k_proj.weight", "attention.key.weight");
  add("self_attn.v_proj.weight", "attention.value.weight");
  add("self_attn.o_proj.weight", "attention.output.weight");
  add("post_attention_layernorm.weight", "norm2.weight");
  add("mlp.gate_proj.weight", "mlp.gate.weight");
  add("mlp.up_proj.weight", "mlp.up.weight");
  add("mlp.down_proj.weight", "mlp.down.weight");
}

}  // namespace

Tensors hugging_face_tensors(const Model& model) {
  const bool gpt2 = model.family == Family::gpt2;
  Tensors tensors;
  tensors.push_back(
      {gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight", {"embedding.tokens"}, false});
  if (gpt2) tensors.push_back({"transformer.wpe.weight", {"embedding.positions"}, false});
  for (int layer = 0; layer < model.layers; ++layer) {
    if (gpt2) {
      add_gpt2_layer(tensors, layer);
    } else {
      add_llama_layer(tensors, layer);
    }
  }
  tensors.push_back(
      {gpt2 ? "transformer.ln_f.weight" : "model.norm.weight", {"final_norm.weight"}, false});
  if (gpt2) tensors.push_back({"transformer.ln_f.bias", {"final_norm.bias"}, false});
  if (!model.tied_embeddings) tensors.push_back({"lm_head.weight", {"head.weight"}, false});
  return tensors;
}

}  // namespace trireme
