#pragma once

#include <optional>
#include <string>

#include "planner/plan/plan.h"
#include "planner/plan/rehearsal.h"

namespace trireme {

// What a command line says about a rehearsal (`trireme run --device emulated`).
struct RehearsalOptions {
  std::optional<double> wire_scale = {};  // 1 unless said
  std::optional<double> time_scale = {};  // 1 unless said
  std::optional<int> steps = {};          // kRehearsedSteps unless said
  std::string op_times = {};              // "f=0.01,i=0.01,w=0.01,hop=0"; empty: those of the plan
  bool any() const { return wire_scale || time_scale || steps || !op_times.empty(); }
};
inline constexpr int kRehearsedSteps = 3;
// One process per rank, all on this machine.
inline constexpr int kMaxRehearsedRanks = 512;

// Throws Error(bad_input) for scales or a number of steps that make no sense.
Rehearsal rehearsal_of(const RehearsalOptions& options);

// The plan as it is rehearsed: as many steps as asked for, no checkpoints, and with `op_times` the
// same times for every stage and the prediction that they lead to: the simulated pipeline, with
// nothing after it. Throws Error(bad_input) for op times that cannot be read, a plan without op
// times, a schedule that the checker refuses, or more ranks than one machine should start.
Plan rehearsed_plan(Plan plan, const RehearsalOptions& options);

}  // namespace trireme
