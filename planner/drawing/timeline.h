#pragma once

#include <string>
#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"

namespace trireme {

// What is drawn: the ops of a schedule and when each ran, predicted or measured. A view: what it
// points to belongs to the caller and outlives it.
struct Timeline {
  const Schedule* schedule = nullptr;
  const std::vector<std::vector<OpTimes>>* times = nullptr;      // by rank and position
  const std::vector<std::vector<MemoryStep>>* memory = nullptr;  // by rank; nullptr: not drawn
  double end = 0;          // of the last op, in any unit; the first op starts at or after 0
  std::string title = {};  // above the drawing
  std::string facts = {};  // a line of figures beneath the title

  size_t op_count() const;
  // The most that this rank holds; 0 without memory.
  double peak(size_t rank) const;
};

Timeline timeline_of(const Schedule& schedule, const Simulation& simulation);
Timeline timeline_of(const Schedule& schedule, const Recording& recording);  // of times alone

// What each rank holds over time when its ops ran at these times: one unit from the start of an F
// until the end of its B (or W, when split). For times that no simulator made.
std::vector<std::vector<MemoryStep>> held_activations(
    const Schedule& schedule, const std::vector<std::vector<OpTimes>>& times);

// "forward", "full backward", "input gradient", "weight gradient".
const char* name_of(OpKind kind);

}  // namespace trireme
