#include <fmt/format.h>

#include "planner/plan/job.h"
#include "topology/base/toml_writer.h"

namespace trireme {
namespace {

const char* name_of(DataFormat format) {
  switch (format) {
    case DataFormat::text:
      return "text";
    case DataFormat::u16:
      return "u16";
    case DataFormat::u32:
      return "u32";
    case DataFormat::llmc:
      break;
  }
  return "llmc";
}

std::string model_table(const Job& job, std::string_view prefix) {
  const auto& model = job.model;
  auto text = fmt::format("[{}model]\n", prefix);
  text += fmt::format("family = \"{}\"\n", trireme::name_of(model.family));
  if (!job.weights.empty()) text += fmt::format("weights = {}\n", toml_string(job.weights));
  text += fmt::format("layers = {}\nhidden = {}\nheads = {}\nkv_heads = {}\nhead_dim = {}\n",
                      model.layers, model.hidden, model.heads, model.kv_heads, model.head_dim);
  text += fmt::format("ffn_hidden = {}\nvocab = {}\nsequence = {}\npositions = {}\n",
                      model.ffn_hidden, model.vocab, model.sequence, model.positions);
  text += fmt::format("tied_embeddings = {}\n", model.tied_embeddings);
  text += fmt::format("norm_epsilon = {}\n", toml_number(model.norm_epsilon));
  if (model.family == Family::llama)
    text += fmt::format("rope_theta = {}\n", toml_number(model.rope_theta));
  text += fmt::format("init_std = {}\n", toml_number(model.init_std));
  return text;
}

std::string training_table(const Training& training, std::string_view prefix) {
  auto text = fmt::format("\n[{}training]\n", prefix);
  text += fmt::format("global_batch = {}\nsteps = {}\nseed = {}\n", training.global_batch,
                      training.steps, training.seed);
  text += fmt::format("dtype = \"{}\"\n", training.dtype == Dtype::bf16 ? "bf16" : "fp32");
  text += fmt::format("learning_rate = {}\n", toml_number(training.learning_rate));
  text += fmt::format("min_learning_rate = {}\n", toml_number(training.min_learning_rate));
  text += fmt::format("warmup_steps = {}\n", training.warmup_steps);
  text += fmt::format("weight_decay = {}\n", toml_number(training.weight_decay));
  text += fmt::format("beta1 = {}\n", toml_number(training.beta1));
  text += fmt::format("beta2 = {}\n", toml_number(training.beta2));
  text += fmt::format("epsilon = {}\n", toml_number(training.epsilon));
  text += fmt::format("clip_grad = {}\n", toml_number(training.clip_grad));
  text += fmt::format("reduction = \"{}\"\n",
                      training.reduction == Reduction::fast ? "fast" : "ordered");
  return text;
}

std::string execution_table(const Execution& execution, std::string_view prefix) {
  const auto* overlap = execution.overlap_tensor == TensorOverlap::none       ? "none"
                        : execution.overlap_tensor == TensorOverlap::backward ? "backward"
                                                                              : "full";
  auto text = fmt::format("\n[{}execution]\n", prefix);
  text += fmt::format("attention = \"{}\"\n",
                      execution.attention == Attention::fused ? "fused" : "unfused");
  text += fmt::format("dropout = {}\n", execution.dropout);
  text += fmt::format("fused_softmax = {}\n", execution.fused_softmax);
  text += fmt::format("fused_elementwise = {}\n", execution.fused_elementwise);
  text += fmt::format("gradient_dtype = \"{}\"\n",
                      execution.gradient_dtype == Dtype::bf16 ? "bf16" : "fp32");
  text += fmt::format("overlap_gradients = {}\n", execution.overlap_gradients);
  text += fmt::format("overlap_pipeline = {}\n", execution.overlap_pipeline);
  text += fmt::format("overlap_tensor = \"{}\"\n", overlap);
  text += fmt::format("sharding_ranks = {}\nsharding_buckets = {}\n", execution.sharding_ranks,
                      execution.sharding_buckets);
  text += fmt::format("issue_us = {}\n", toml_number(execution.issue_us));
  return text;
}

template <class Value>
std::string pin(const char* key, const std::optional<Value>& value) {
  return value ? fmt::format("{} = {}\n", key, *value) : fmt::format("{} = \"auto\"\n", key);
}

std::string layout_table(const Pins& pins, std::string_view prefix) {
  auto text = fmt::format("\n[{}layout]\n", prefix);
  text += pin("tensor", pins.tensor) + pin("pipeline", pins.pipeline) + pin("data", pins.data);
  text += pin("chunks", pins.chunks) + pin("micro_batch", pins.micro_batch);
  text += fmt::format("schedule = \"{}\"\n", pins.schedule.value_or("auto"));
  text += pin("sequence_parallel", pins.sequence_parallel);
  text += fmt::format("recompute = \"{}\"\n",
                      pins.recompute ? trireme::name_of(*pins.recompute) : "auto");
  text += pin("optimizer_sharding", pins.optimizer_sharding);
  text += pin("even_cut", pins.even_cut);
  return text;
}

}  // namespace

std::string to_toml(const Job& job, std::string_view prefix) {
  // A nested job's own keys need its table opened: "job." makes [job].
  auto text = prefix.empty() ? "" : fmt::format("[{}]\n", prefix.substr(0, prefix.size() - 1));
  text += fmt::format("name = {}\n\n", toml_string(job.name));
  text += model_table(job, prefix) + training_table(job.training, prefix);
  text += execution_table(job.execution, prefix);
  text += fmt::format("\n[{}data]\npath = {}\nformat = \"{}\"\norder = \"{}\"\n", prefix,
                      toml_string(job.data.path), name_of(job.data.format),
                      job.data.order == SampleOrder::sequential ? "sequential" : "shuffled");
  text += layout_table(job.pins, prefix);
  text += fmt::format("\n[{}checkpoint]\nevery = {}\nkeep = {}\n", prefix, job.checkpoint.every,
                      job.checkpoint.keep);
  return text;
}

}  // namespace trireme
