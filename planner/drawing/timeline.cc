#include "planner/drawing/timeline.h"

#include <algorithm>

namespace trireme {

size_t Timeline::op_count() const {
  size_t count = 0;
  for (const std::vector<Op>& program : schedule->ranks) count += program.size();
  return count;
}

double Timeline::peak(size_t rank) const {
  double most = 0;
  if (memory == nullptr) return most;
  for (const MemoryStep& step : (*memory)[rank]) most = std::max(most, step.units);
  return most;
}

Timeline timeline_of(const Schedule& schedule, const Recording& recording) {
  return {.schedule = &schedule,
          .times = &recording.ops,
          .end = recording.makespan,
          .title = schedule.name};
}

Timeline timeline_of(const Schedule& schedule, const Simulation& simulation) {
  Timeline timeline = timeline_of(schedule, static_cast<const Recording&>(simulation));
  timeline.memory = &simulation.memory;
  return timeline;
}

std::vector<std::vector<MemoryStep>> held_activations(
    const Schedule& schedule, const std::vector<std::vector<OpTimes>>& times) {
  std::vector<std::vector<MemoryStep>> memory(schedule.ranks.size());
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    std::vector<MemoryStep>& changes = memory[rank];
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const OpKind kind = schedule.ranks[rank][i].kind;
      if (kind == OpKind::forward) changes.push_back({times[rank][i].start, 1});
      if (kind == OpKind::backward || kind == OpKind::backward_weight) {
        changes.push_back({times[rank][i].end, -1});
      }
    }
    // What ends when another starts is freed first: a rank runs one op after the other.
    std::stable_sort(changes.begin(), changes.end(), [](const MemoryStep& a, const MemoryStep& b) {
      return a.time < b.time || (a.time == b.time && a.units < b.units);
    });
    double held = 0;
    for (MemoryStep& change : changes) change.units = held += change.units;
  }
  return memory;
}

const char* name_of(OpKind kind) {
  switch (kind) {
    case OpKind::forward:
      return "forward";
    case OpKind::backward:
      return "full backward";
    case OpKind::backward_input:
      return "input gradient";
    case OpKind::backward_weight:
      return "weight gradient";
  }
  return "";
}

}  // namespace trireme
