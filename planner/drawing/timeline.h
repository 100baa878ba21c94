#pragma once

#include <string>
#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"

namespace trireme {

// What is drawn: the ops of a schedule and when each ran, predicted or measured. A view: the
// schedule and the times belong to the caller and outlive it.
struct Timeline {
  const Schedule* schedule = nullptr;
  const std::vector<std::vector<OpTimes>>* times = nullptr;  // by rank and position
  double end = 0;          // of the last op, in any unit; the first op starts at or after 0
  double activation = 1;   // what holding a chunk's activation counts
  std::string title = {};  // above the drawing
  std::string facts = {};  // a line of figures beneath the title

  size_t op_count() const;
};

Timeline timeline_of(const Schedule& schedule, const Simulation& simulation);

// From `time` on a rank holds `held`.
struct HeldStep {
  double time = 0;
  double held = 0;
  bool operator==(const HeldStep&) const = default;
};

// What a rank holds over time: Timeline::activation from the start of its F until the end of its B
// (or W, when split). Ascending in time; empty for a rank without ops.
std::vector<HeldStep> held_activations(const Timeline& timeline, size_t rank);

// "forward", "full backward", "input gradient", "weight gradient".
const char* name_of(OpKind kind);

}  // namespace trireme
