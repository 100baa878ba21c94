#include "planner/plan/model.h"

#include <fmt/format.h>

namespace trireme {
namespace {

// A weight matrix, with its bias in the family that has biases.
int64_t linear_parameters(const Model& model, int64_t in, int64_t out) {
  return in * out + (model.family == Family::gpt2 ? out : 0);
}

// LayerNorm has a gain and a bias, RMSNorm only a gain.
int64_t norm_parameters(const Model& model) {
  return (model.family == Family::gpt2 ? 2 : 1) * static_cast<int64_t>(model.hidden);
}

}  // namespace

const char* name_of(Family family) {
  return family == Family::gpt2 ? "gpt2" : "llama";
}

std::optional<ModelFault> find_fault(const Model& model) {
  const auto fault = [](const char* field, int found, const std::string& expected) {
    return ModelFault{field, fmt::format("found {}, expected {}", found, expected)};
  };
  if (model.hidden % model.heads != 0) {
    return fault("heads", model.heads,
                 fmt::format("a divisor of hidden, which is {}", model.hidden));
  }
  if (model.heads % model.kv_heads != 0) {
    return fault("kv_heads", model.kv_heads,
                 fmt::format("a divisor of heads, which is {}", model.heads));
  }
  if (model.family == Family::llama) {
    if (model.head_dim % 2 == 0) return std::nullopt;
    return fault("head_dim", model.head_dim, "an even number, because rotary positions turn pairs");
  }
  if (model.head_dim != model.hidden / model.heads) {
    return fault("head_dim", model.head_dim,
                 fmt::format("{} (hidden / heads) for gpt2", model.hidden / model.heads));
  }
  if (model.positions < model.sequence) {
    return fault("positions", model.positions,
                 fmt::format("at least sequence, which is {}", model.sequence));
  }
  return std::nullopt;
}

int default_ffn_hidden(Family family, int hidden) {
  if (family == Family::gpt2) return 4 * hidden;
  const int multiple = hidden < 256 ? 32 : 256;
  const int two_thirds = (8 * hidden + 2) / 3;
  return (two_thirds + multiple - 1) / multiple * multiple;
}

int64_t layer_parameters(const Model& model) {
  const int64_t query = static_cast<int64_t>(model.heads) * model.head_dim;
  const int64_t key_and_value = 2 * static_cast<int64_t>(model.kv_heads) * model.head_dim;
  const int64_t attention = linear_parameters(model, model.hidden, query + key_and_value) +
                            linear_parameters(model, query, model.hidden);
  // SwiGLU projects up twice: gate and value.
  const int64_t up = linear_parameters(model, model.hidden, model.ffn_hidden) *
                     (model.family == Family::llama ? 2 : 1);
  const int64_t down = linear_parameters(model, model.ffn_hidden, model.hidden);
  return attention + up + down + 2 * norm_parameters(model);
}

int64_t embedding_parameters(const Model& model) {
  const int64_t rows = model.vocab + (model.family == Family::gpt2 ? model.positions : int64_t{0});
  return rows * model.hidden;
}

int64_t final_norm_parameters(const Model& model) {
  return norm_parameters(model);
}

int64_t head_parameters(const Model& model) {
  return model.tied_embeddings ? 0 : static_cast<int64_t>(model.vocab) * model.hidden;
}

int64_t total_parameters(const Model& model) {
  return model.layers * layer_parameters(model) + embedding_parameters(model) +
         final_norm_parameters(model) + head_parameters(model);
}

}  // namespace trireme
