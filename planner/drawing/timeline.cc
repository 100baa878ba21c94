#include "planner/drawing/timeline.h"

#include <algorithm>

namespace trireme {

size_t Timeline::op_count() const {
  size_t count = 0;
  for (const std::vector<Op>& program : schedule->ranks) count += program.size();
  return count;
}

Timeline timeline_of(const Schedule& schedule, const Simulation& simulation) {
  return {.schedule = &schedule,
          .times = &simulation.ops,
          .end = simulation.makespan,
          .title = schedule.name};
}

std::vector<HeldStep> held_activations(const Timeline& timeline, size_t rank) {
  std::vector<HeldStep> changes;
  for (size_t i = 0; i < timeline.schedule->ranks[rank].size(); ++i) {
    const OpKind kind = timeline.schedule->ranks[rank][i].kind;
    const OpTimes& times = (*timeline.times)[rank][i];
    if (kind == OpKind::forward) changes.push_back({times.start, timeline.activation});
    if (kind == OpKind::backward || kind == OpKind::backward_weight) {
      changes.push_back({times.end, -timeline.activation});
    }
  }
  // What ends when another starts is freed first: a rank runs one op after the other.
  std::stable_sort(changes.begin(), changes.end(), [](const HeldStep& a, const HeldStep& b) {
    return a.time < b.time || (a.time == b.time && a.held < b.held);
  });
  double held = 0;
  for (HeldStep& change : changes) change.held = held += change.held;
  return changes;
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
