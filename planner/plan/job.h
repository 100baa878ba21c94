#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "planner/plan/layout.h"
#include "planner/plan/model.h"
#include "topology/base/toml_reader.h"

namespace trireme {

enum class Dtype { fp32, bf16 };
enum class DataFormat { text, u16, u32, llmc };
enum class SampleOrder { sequential, shuffled };

// How gradients of micro-batches and data replicas are summed.
enum class Reduction {
  ordered,  // over one fixed tree of all micro-batches of the step: no layout changes a bit
  fast,     // in place, and by a ring over replicas: less memory, last bits vary with `data`
};

struct Training {
  int global_batch = 1;  // samples per step
  int steps = 1;
  uint64_t seed = 1;
  Dtype dtype = Dtype::fp32;
  double learning_rate = 3e-4;
  double min_learning_rate = 0;  // the cosine ends here at the last step
  int warmup_steps = 0;
  double weight_decay = 0.1;  // on matrices and embeddings, not on biases and norms
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip_grad = 1.0;                   // global norm; 0: no clipping
  std::optional<Reduction> reduction = {};  // not said: what suits the device
  bool operator==(const Training&) const = default;

  // CPU ranks are there to be exact, accelerators have no memory to spare.
  Reduction reduction_on(bool cpu) const {
    return reduction.value_or(cpu ? Reduction::ordered : Reduction::fast);
  }
};

enum class Attention { fused, unfused };  // unfused stores the scores of every head
enum class TensorOverlap { none, backward, full };

// How the program that trains does its work, as far as it moves the prediction. The defaults are
// those of current frameworks.
struct Execution {
  Attention attention = Attention::fused;
  bool dropout = false;
  bool fused_softmax = true;  // unfused attention scales, masks and normalises in one kernel
  // Norms, rotary positions and activations in one kernel each; gradients added up by the product
  // that makes them.
  bool fused_elementwise = true;
  Dtype gradient_dtype = Dtype::fp32;  // in which gradients are kept and reduced
  bool overlap_gradients = true;       // replicas reduce while the backward still runs
  bool overlap_pipeline = true;        // a pipeline rank computes on while its messages leave
  // Tensor ranks send a share each of what they all have between pipeline ranks, and gather it
  // there; with sequence parallelism they always do (Narayanan et al. 2021, section 4.1).
  bool split_messages = false;
  // Collectives of tensor ranks hidden behind matrix products. backward: behind the weight
  // gradient (Korthikanti et al. 2022, section 6.1); full: products and collectives in pieces.
  TensorOverlap overlap_tensor = TensorOverlap::backward;
  // Replicas that have one copy of a sharded optimizer's state among them; 0: all.
  int sharding_ranks = 0;
  // They exchange gradients and new weights in flat buckets; false: tensor by tensor, to and from
  // the one replica that owns it.
  bool sharding_buckets = true;
  double issue_us = 8;      // host time to issue one kernel
  bool issue_ahead = true;  // while the device works on earlier ones
  bool operator==(const Execution&) const = default;
};

// What the job says of it; the planner assumes the rest (planner/assumptions.h).
struct ExecutionPins {
  std::optional<Attention> attention = {};
  std::optional<bool> dropout = {};
  std::optional<bool> fused_softmax = {};
  std::optional<bool> fused_elementwise = {};
  std::optional<Dtype> gradient_dtype = {};
  std::optional<bool> overlap_gradients = {};
  std::optional<bool> overlap_pipeline = {};
  std::optional<bool> split_messages = {};
  std::optional<TensorOverlap> overlap_tensor = {};
  std::optional<int> sharding_ranks = {};
  std::optional<bool> sharding_buckets = {};
  std::optional<double> issue_us = {};
  std::optional<bool> issue_ahead = {};
  bool operator==(const ExecutionPins&) const = default;
};

struct Data {
  std::string path = "/usr/share/common-licenses/*";
  DataFormat format = DataFormat::text;
  SampleOrder order = SampleOrder::shuffled;
  bool operator==(const Data&) const = default;
};

struct Checkpoint {
  int every = 0;  // steps; 0: only at the end
  int keep = 2;   // newest checkpoints kept; 0: all
  bool operator==(const Checkpoint&) const = default;
};

// Where a file has the pins, by key: "job.toml:21:10". For messages alone, so any two are equal.
struct PinPlaces {
  std::map<std::string, std::string, std::less<>> by_key;
  bool operator==(const PinPlaces&) const { return true; }
};

// What the user fixed; everything else the planner chooses.
struct Pins {
  std::optional<int> tensor, pipeline, data, chunks, micro_batch, optimizer_sharding;
  std::optional<std::string> schedule;
  std::optional<bool> sequence_parallel;
  std::optional<Recompute> recompute;
  std::optional<int> recompute_ranks = std::nullopt;
  std::optional<bool> even_cut = std::nullopt;  // true: as many layers in every stage (layer_cut.h)
  PinPlaces places = {};                        // of those that a file fixed
  bool operator==(const Pins&) const = default;
};

struct Job {
  std::string name;
  Model model;
  std::string weights;  // directory of safetensors to start from; empty: random from the seed
  Training training;
  ExecutionPins execution;
  Data data;
  Checkpoint checkpoint;
  Pins pins;
  bool operator==(const Job&) const = default;
};

// Reads a job file (docs/job.md). Relative paths in it are taken from the file's directory. Throws
// Error(bad_input).
Job read_job(const std::string& path);
Job parse_job(std::string_view text, const std::string& name, const std::string& directory);
// The job part of a larger file; asks for every key of `root` that a job has.
Job parse_job(TomlTable& root, const std::string& directory);
// The same job as a job file, every key spelled out. `prefix` comes before the name of each table,
// for a larger file that holds the job: "job." makes [job.model].
std::string to_toml(const Job& job, std::string_view prefix = "");

// The schedules that may be pinned, in the order of the documents; "auto" besides them leaves the
// choice open.
const std::vector<std::string>& schedule_names();
const std::vector<std::string>& pin_names();

// One "key=value" of --pin into `pins`; "key=auto" unpins. Throws Error(bad_input) for unknown keys
// and impossible values.
void set_pin(Pins& pins, std::string_view key_and_value);
// A pin as messages name it: "tensor=8", and where a file has it, "tensor=8 (job.toml:21:10)".
std::string name_of_pin(const Pins& pins, std::string_view key, const std::string& value);
// Several; the same key with two values is a contradiction, which throws as well.
void set_pins(Pins& pins, const std::vector<std::string>& keys_and_values);

// Dimensions from a Hugging Face config.json (GPT-2 and Llama). `sequence` is 0 when the caller has
// not said it: then the model's own maximum is taken. Throws Error(bad_input) naming the key for
// what trireme cannot train.
Model model_from_hugging_face(const std::string& config_path, int sequence);
// The config.json that transformers loads for this model.
std::string to_hugging_face_config(const Model& model);

}  // namespace trireme
