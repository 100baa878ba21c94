#pragma once

#include <optional>
#include <span>
#include <string>

#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "runtime/comm/transport.h"
#include "runtime/data/token_source.h"
#include "runtime/device/device.h"
#include "runtime/model/parameters.h"

namespace trireme {

// A checkpoint is a Hugging Face model directory (config.json, model*.safetensors, an index when
// there are several) with the optimizer's state beside it (optimizer*.safetensors) and a
// manifest.json that names every file with its size and SHA-256. Everything is in global
// coordinates: it loads at any layout. Each pipeline rank of the first data replica writes its
// stages; its tensor group sends it their shards.

// One stage's state on this rank; flat device memory at the offsets of `parameters`.
struct StageState {
  const StageParameters* parameters = nullptr;
  const float* weights = nullptr;
  const float* momentum = nullptr;
  const float* variance = nullptr;
};

// Where a training stood when its checkpoint was made.
struct TrainingState {
  int step = 0;                               // steps done
  std::optional<TokenSource::Identity> data;  // that it was trained on
};

struct SavedCheckpoint {
  std::string directory;
  std::string note;  // why older ones could not be removed; empty: they are
};

// Collective over all ranks. The files are written to a temporary directory, synced, and renamed
// into place by rank 0, which then removes checkpoints beyond plan.job.checkpoint.keep: whenever a
// process is killed, the last whole checkpoint is there. No rank holds more than a few parameters
// twice meanwhile. Answers on rank 0, once it is durable; nothing elsewhere. Throws Error(failed)
// on the rank that could not write, naming file and reason; the temporary files are gone then.
std::optional<SavedCheckpoint> save_checkpoint(const Plan& plan, Rank rank, Device& device,
                                               Transport& transport,
                                               std::span<const StageState> stages,
                                               const TrainingState& training,
                                               const RunDirectory& run);

// Throws Error(bad_input) when the manifest is not there or not readable, or the model that was
// trained is another.
TrainingState read_training_state(const std::string& directory, const Model& model);

}  // namespace trireme
