#pragma once

#include <optional>
#include <span>
#include <string>

#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "runtime/comm/transport.h"
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

// Collective over all ranks. `step`: how many steps were done. The files are written to a temporary
// directory, synced, and renamed into place by rank 0, which then removes checkpoints beyond
// plan.job.checkpoint.keep: whenever a process is killed, the last whole checkpoint is there.
// Returns the directory on rank 0 once it is durable, nothing elsewhere. Throws Error(failed) on
// the rank that could not write, naming file and reason; the temporary files are gone then.
std::optional<std::string> save_checkpoint(const Plan& plan, Rank rank, Device& device,
                                           Transport& transport, std::span<const StageState> stages,
                                           int step, const RunDirectory& run);

// Removes what a killed run left half-written. Rank 0, before anything is saved.
void remove_partial_checkpoints(const RunDirectory& run);

// Steps done when the checkpoint was made. Throws Error(bad_input) when its manifest is not there
// or not readable.
int checkpoint_step(const std::string& directory);

}  // namespace trireme
