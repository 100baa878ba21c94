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

template <class Value>
std::string pin(const char* key, const std::optional<Value>& value) {
  return value ? fmt::format("{} = {}\n", key, *value) : fmt::format("{} = \"auto\"\n", key);
}

const char* name_of(Attention attention) {
  return attention == Attention::fused ? "fused" : "unfused";
}
const char* name_of(Dtype dtype) {
  return dtype == Dtype::bf16 ? "bf16" : "fp32";
}
const char* name_of(Reduction reduction) {
  return reduction == Reduction::fast ? "fast" : "ordered";
}
const char* name_of(TensorOverlap overlap) {
  switch (overlap) {
    case TensorOverlap::none:
      return "none";
    case TensorOverlap::backward:
      return "backward";
    case TensorOverlap::full:
      break;
  }
  return "full";
}

template <class Value>
std::string choice(const char* key, const std::optional<Value>& value) {
  return fmt::format("{} = \"{}\"\n", key, value ? name_of(*value) : "auto");
}

std::string execution_table(const ExecutionPins& execution, std::string_view prefix) {
  auto text = fmt::format("\n[{}execution]\n", prefix);
  text += choice("attention", execution.attention) + pin("dropout", execution.dropout);
  text += pin("fused_softmax", execution.fused_softmax);
  text += pin("fused_elementwise", execution.fused_elementwise);
  text += choice("gradient_dtype", execution.gradient_dtype);
  text += pin("overlap_gradients", execution.overlap_gradients);
  text += pin("overlap_pipeline", execution.overlap_pipeline);
  text += pin("split_messages", execution.split_messages);
  text += choice("overlap_tensor", execution.overlap_tensor);
  text += pin("sharding_ranks", execution.sharding_ranks);
  text += pin("sharding_buckets", execution.sharding_buckets);
  text += pin("issue_ahead", execution.issue_ahead);
  text += fmt::format("issue_us = {}\n",
                      execution.issue_us ? toml_number(*execution.issue_us) : "\"auto\"");
  return text;
}

std::string training_table(const Training& training, std::string_view prefix) {
  auto text = fmt::format("\n[{}training]\n", prefix);
  text += fmt::format("global_batch = {}\nsteps = {}\nseed = {}\n", training.global_batch,
                      training.steps, training.seed);
  text += fmt::format("dtype = \"{}\"\n", name_of(training.dtype));
  text += fmt::format("learning_rate = {}\n", toml_number(training.learning_rate));
  text += fmt::format("min_learning_rate = {}\n", toml_number(training.min_learning_rate));
  text += fmt::format("warmup_steps = {}\n", training.warmup_steps);
  text += fmt::format("weight_decay = {}\n", toml_number(training.weight_decay));
  text += fmt::format("beta1 = {}\n", toml_number(training.beta1));
  text += fmt::format("beta2 = {}\n", toml_number(training.beta2));
  text += fmt::format("epsilon = {}\n", toml_number(training.epsilon));
  text += fmt::format("clip_grad = {}\n", toml_number(training.clip_grad));
  text += choice("reduction", training.reduction);
  return text;
}

std::string layout_table(const Pins& pins, std::string_view prefix) {
  auto text = fmt::format("\n[{}layout]\n", prefix);
  text += pin("tensor", pins.tensor) + pin("pipeline", pins.pipeline) + pin("data", pins.data);
  text += pin("chunks", pins.chunks) + pin("micro_batch", pins.micro_batch);
  text += fmt::format("schedule = \"{}\"\n", pins.schedule.value_or("auto"));
  text += pin("sequence_parallel", pins.sequence_parallel);
  text += fmt::format("recompute = \"{}\"\n",
                      pins.recompute ? trireme::name_of(*pins.recompute) : "auto");
  text += pin("recompute_ranks", pins.recompute_ranks);
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
