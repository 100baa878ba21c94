#include "planner/plan/job.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "planner/plan/limits.h"

namespace trireme {
namespace {

constexpr int kByteVocab = 256;

// A path in a file is meant from where the file lies. Wildcards pass through untouched.
std::string resolve(const std::string& path, const std::string& directory) {
  return std::filesystem::absolute(std::filesystem::path(directory) / path)
      .lexically_normal()
      .string();
}

int read_int(TomlTable& table, std::string_view key, int64_t low, int high) {
  return static_cast<int>(table.integer(key, low, high));
}

int read_int_or(TomlTable& table, std::string_view key, int fallback, int64_t low, int high) {
  return static_cast<int>(table.integer_or(key, fallback, low, high));
}

Data read_data(TomlTable& root, const std::string& directory) {
  Data data;
  auto table = root.optional_table("data");
  if (!table) return data;
  if (const auto path = table->optional_string("path")) {
    if (path->empty())
      throw table->error("path", "found \"\", expected a file or a pattern like corpus/*.txt");
    data.path = resolve(*path, directory);
  }
  const auto format = table->optional_choice("format", {"text", "u16", "u32", "llmc"});
  if (format == "u16") data.format = DataFormat::u16;
  if (format == "u32") data.format = DataFormat::u32;
  if (format == "llmc") data.format = DataFormat::llmc;
  if (table->optional_choice("order", {"sequential", "shuffled"}) == "sequential") {
    data.order = SampleOrder::sequential;
  }
  table->finish();
  return data;
}

Model read_dimensions(TomlTable& table, DataFormat format) {
  using namespace limits;
  Model model;
  model.family = table.choice("family", {"gpt2", "llama"}) == "gpt2" ? Family::gpt2 : Family::llama;
  const bool llama = model.family == Family::llama;
  model.layers = read_int(table, "layers", 1, kLayers);
  model.hidden = read_int(table, "hidden", 1, kHidden);
  model.heads = read_int(table, "heads", 1, kHeads);
  model.kv_heads = read_int_or(table, "kv_heads", model.heads, 1, kHeads);
  const int even_share = std::max(1, model.hidden / model.heads);
  if (even_share > kHeadDim && !table.has("head_dim")) {
    throw table.error("heads",
                      fmt::format("found {}, expected more, for heads of at most {} columns",
                                  model.heads, kHeadDim));
  }
  model.head_dim = read_int_or(table, "head_dim", even_share, 1, kHeadDim);
  model.ffn_hidden = read_int_or(table, "ffn_hidden",
                                 default_ffn_hidden(model.family, model.hidden), 1, kFfnHidden);
  model.vocab = format == DataFormat::text ? read_int_or(table, "vocab", kByteVocab, 1, kVocab)
                                           : read_int(table, "vocab", 1, kVocab);
  model.sequence = read_int(table, "sequence", 1, kSequence);
  model.positions = read_int_or(table, "positions", model.sequence, 1, kSequence);
  model.tied_embeddings = table.boolean_or("tied_embeddings", !llama);
  model.norm_epsilon = table.number_or("norm_epsilon", model.norm_epsilon, 1e-30, 1);
  if (llama) model.rope_theta = table.number_or("rope_theta", model.rope_theta, 1, 1e15);
  model.init_std = table.number_or("init_std", model.init_std, 0, 100);
  if (const auto fault = find_fault(model))
    throw table.error(fault->field, fault->found_and_expected);
  return model;
}

// The dimensions stand in the job file (family), in a config.json, or in the config.json beside the
// starting weights.
Model read_model(TomlTable& table, const Job& job, const std::string& directory) {
  const auto config = table.optional_string("config");
  if (config && table.has("family")) {
    throw table.error("config", "found beside family, expected one of them to give the dimensions");
  }
  Model model;
  if (config || (!job.weights.empty() && !table.has("family"))) {
    for (const auto* key : {"layers", "hidden", "heads", "vocab"}) {
      if (table.has(key))
        throw table.error(key, "found without family, expected family and all dimensions, or none");
    }
    const auto path = config ? resolve(*config, directory) : job.weights + "/config.json";
    model = model_from_hugging_face(path, read_int_or(table, "sequence", 0, 1, limits::kSequence));
    model.init_std = table.number_or("init_std", model.init_std, 0, 100);
  } else {
    model = read_dimensions(table, job.data.format);
  }
  if (job.data.format == DataFormat::text && model.vocab < kByteVocab) {
    throw table.error(
        "vocab",
        fmt::format("found {}, expected at least {} because data.format is \"text\" (bytes)",
                    model.vocab, kByteVocab));
  }
  return model;
}

// Values of enumerations that a file may leave to the planner.
template <class Value>
std::optional<Value> read_choice(TomlTable& table, std::string_view key,
                                 const std::vector<std::pair<std::string, Value>>& values) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) names.push_back(name);
  names.emplace_back("auto");
  const auto found = table.optional_choice(key, names);
  for (const auto& [name, value] : values) {
    if (found == name) return value;
  }
  return std::nullopt;
}

Training read_training(TomlTable table) {
  Training training;
  training.global_batch = read_int(table, "global_batch", 1, limits::kBatch);
  training.steps = read_int(table, "steps", 1, limits::kSteps);
  training.seed = static_cast<uint64_t>(table.integer_or("seed", 1, 0, INT64_MAX));
  if (table.optional_choice("dtype", {"fp32", "bf16"}) == "bf16") training.dtype = Dtype::bf16;
  training.learning_rate = table.number_or("learning_rate", training.learning_rate, 0, 1000);
  training.min_learning_rate =
      table.number_or("min_learning_rate", training.min_learning_rate, 0, 1000);
  training.warmup_steps = read_int_or(table, "warmup_steps", 0, 0, limits::kSteps);
  training.weight_decay = table.number_or("weight_decay", training.weight_decay, 0, 1000);
  training.beta1 = table.number_or("beta1", training.beta1, 0, 1);
  training.beta2 = table.number_or("beta2", training.beta2, 0, 1);
  training.epsilon = table.number_or("epsilon", training.epsilon, 1e-30, 1);
  training.clip_grad = table.number_or("clip_grad", training.clip_grad, 0, 1e9);
  training.reduction = read_choice<Reduction>(
      table, "reduction", {{"ordered", Reduction::ordered}, {"fast", Reduction::fast}});
  table.finish();

  if (training.warmup_steps > training.steps) {
    throw table.error("warmup_steps", fmt::format("found {}, expected at most steps, which is {}",
                                                  training.warmup_steps, training.steps));
  }
  if (training.min_learning_rate > training.learning_rate) {
    throw table.error("min_learning_rate",
                      fmt::format("found {}, expected at most learning_rate, which is {}",
                                  training.min_learning_rate, training.learning_rate));
  }
  for (const auto& [key, beta] :
       {std::pair("beta1", training.beta1), std::pair("beta2", training.beta2)}) {
    if (beta >= 1) throw table.error(key, fmt::format("found {}, expected a number below 1", beta));
  }
  return training;
}

// True for "auto", false for a value that is no string; any other string is complained about.
bool is_auto(TomlTable& table, std::string_view key, const std::string& expected) {
  if (table.type_of(key) != "string") return false;
  if (table.string(key) == "auto") return true;
  throw table.unexpected(key, expected + " or \"auto\"");
}

std::optional<int> read_pinned_int(TomlTable& table, std::string_view key, int low, int high) {
  if (is_auto(table, key, fmt::format("an integer from {} to {}", low, high))) return std::nullopt;
  const std::string_view type = table.type_of(key);
  if (type != "none" && type != "integer") {
    throw table.unexpected(key, fmt::format("an integer from {} to {}, or \"auto\"", low, high));
  }
  const auto value = table.optional_integer(key, low, high);
  return value ? std::optional<int>(static_cast<int>(*value)) : std::nullopt;
}

std::optional<bool> read_pinned_bool(TomlTable& table, std::string_view key) {
  if (is_auto(table, key, "true, false")) return std::nullopt;
  const std::string_view type = table.type_of(key);
  if (type != "none" && type != "boolean") {
    throw table.unexpected(key, "true, false or \"auto\"");
  }
  return table.optional_boolean(key);
}

ExecutionPins read_execution(TomlTable table) {
  ExecutionPins execution;
  execution.attention = read_choice<Attention>(
      table, "attention", {{"fused", Attention::fused}, {"unfused", Attention::unfused}});
  execution.dropout = read_pinned_bool(table, "dropout");
  execution.fused_softmax = read_pinned_bool(table, "fused_softmax");
  execution.fused_elementwise = read_pinned_bool(table, "fused_elementwise");
  execution.gradient_dtype =
      read_choice<Dtype>(table, "gradient_dtype", {{"fp32", Dtype::fp32}, {"bf16", Dtype::bf16}});
  execution.overlap_gradients = read_pinned_bool(table, "overlap_gradients");
  execution.overlap_pipeline = read_pinned_bool(table, "overlap_pipeline");
  execution.split_messages = read_pinned_bool(table, "split_messages");
  execution.overlap_tensor = read_choice<TensorOverlap>(table, "overlap_tensor",
                                                        {{"none", TensorOverlap::none},
                                                         {"backward", TensorOverlap::backward},
                                                         {"full", TensorOverlap::full}});
  execution.sharding_ranks = read_pinned_int(table, "sharding_ranks", 0, 1 << 20);
  execution.sharding_buckets = read_pinned_bool(table, "sharding_buckets");
  execution.issue_ahead = read_pinned_bool(table, "issue_ahead");
  if (!is_auto(table, "issue_us", "a number from 0 to 1e6")) {
    execution.issue_us = table.optional_number("issue_us", 0, 1e6);
  }
  table.finish();
  return execution;
}

std::optional<std::string> read_pinned_name(TomlTable& table, std::string_view key,
                                            std::vector<std::string> names) {
  names.emplace_back("auto");
  const auto name = table.optional_choice(key, names);
  return name == "auto" ? std::nullopt : name;
}

Pins read_pins(TomlTable table) {
  Pins pins;
  pins.tensor = read_pinned_int(table, "tensor", 1, limits::kDegree);
  pins.pipeline = read_pinned_int(table, "pipeline", 1, limits::kDegree);
  pins.data = read_pinned_int(table, "data", 1, limits::kDegree);
  pins.chunks = read_pinned_int(table, "chunks", 1, limits::kChunks);
  pins.micro_batch = read_pinned_int(table, "micro_batch", 1, limits::kMicroBatch);
  pins.optimizer_sharding = read_pinned_int(table, "optimizer_sharding", 0, 1);
  pins.schedule = read_pinned_name(table, "schedule", schedule_names());
  pins.sequence_parallel = read_pinned_bool(table, "sequence_parallel");
  pins.recompute_ranks = read_pinned_int(table, "recompute_ranks", 0, limits::kDegree);
  if (const auto name = read_pinned_name(table, "recompute", recompute_names())) {
    pins.recompute = recompute_named(*name);
  }
  pins.even_cut = read_pinned_bool(table, "even_cut");
  for (const std::string& key : pin_names()) {
    if (table.has(key)) pins.places.by_key.emplace(key, table.place(key));
  }
  table.finish();
  return pins;
}

Checkpoint read_checkpoint(TomlTable table) {
  Checkpoint checkpoint;
  checkpoint.every = read_int_or(table, "every", checkpoint.every, 0, limits::kSteps);
  checkpoint.keep = read_int_or(table, "keep", checkpoint.keep, 0, limits::kSteps);
  table.finish();
  return checkpoint;
}

}  // namespace

Job parse_job(TomlTable& root, const std::string& directory) {
  Job job;
  job.name = root.printable("name", root.string_or("name", "job"));
  job.data = read_data(root, directory);
  auto model = root.table("model");
  if (const auto weights = model.optional_string("weights"))
    job.weights = resolve(*weights, directory);
  job.model = read_model(model, job, directory);
  model.finish();
  job.training = read_training(root.table("training"));
  if (const auto table = root.optional_table("execution")) job.execution = read_execution(*table);
  if (const auto layout = root.optional_table("layout")) job.pins = read_pins(*layout);
  if (const auto table = root.optional_table("checkpoint"))
    job.checkpoint = read_checkpoint(*table);
  return job;
}

Job parse_job(std::string_view text, const std::string& name, const std::string& directory) {
  const auto file = TomlFile::parse(text, name);
  auto root = file.root();
  auto job = parse_job(root, directory);
  root.finish();
  return job;
}

Job read_job(const std::string& path) {
  const auto directory = std::filesystem::absolute(path).parent_path().string();
  return parse_job(read_text_file(path), path, directory);
}

}  // namespace trireme
