#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "planner/simulator.h"
#include "tests/planner/random_schedule.h"

namespace trireme {

// An independent simulation that a reader can believe at a glance: every op's end is the maximum
// over what it waits for, found by searching all ops, repeated until nothing changes. Quadratic and
// worse; no overlapped pairs.
inline std::vector<std::vector<OpTimes>> dumb_times(const Schedule& schedule, const Costs& costs) {
  std::vector<std::vector<OpTimes>> times;
  for (const auto& program : schedule.ranks) times.emplace_back(program.size(), OpTimes{0, -1});
  const auto end_of = [&](bool forward, int stage, int i) -> std::pair<double, int> {
    for (size_t r = 0; r < schedule.ranks.size(); ++r) {
      for (size_t k = 0; k < schedule.ranks[r].size(); ++k) {
        const Op& op = schedule.ranks[r][k];
        const bool is_forward = op.kind == OpKind::forward;
        if (op.stage == stage && op.micro_batch == i && is_forward == forward &&
            op.kind != OpKind::backward_weight) {
          return {times[r][k].end, static_cast<int>(r)};
        }
      }
    }
    return {-1, -1};
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t r = 0; r < schedule.ranks.size(); ++r) {
      for (size_t k = 0; k < schedule.ranks[r].size(); ++k) {
        if (times[r][k].end >= 0) continue;
        const Op& op = schedule.ranks[r][k];
        double start = k == 0 ? 0 : times[r][k - 1].end;
        bool known = start >= 0;
        const auto after = [&](bool forward, int stage) {
          const auto [end, rank] = end_of(forward, stage, op.micro_batch);
          known = known && end >= 0;
          start = std::max(start, end + (rank == static_cast<int>(r) ? 0 : costs.hop));
        };
        const int last = static_cast<int>(schedule.stages.size()) - 1;
        if (op.kind == OpKind::forward && op.stage > 0) after(true, op.stage - 1);
        if (op.kind == OpKind::backward || op.kind == OpKind::backward_input) {
          after(true, op.stage);
          if (op.stage < last) after(false, op.stage + 1);
        }
        if (op.kind == OpKind::backward_weight) after(false, op.stage);
        if (!known) continue;
        double duration = 0;
        if (costs.op_time) {
          duration = costs.op_time(static_cast<int>(r), k);
        } else {
          const StageCost& cost = costs.stages[static_cast<size_t>(op.stage) % costs.stages.size()];
          if (op.kind == OpKind::forward) duration = cost.forward;
          if (op.kind == OpKind::backward) duration = cost.input + cost.weight;
          if (op.kind == OpKind::backward_input) duration = cost.input;
          if (op.kind == OpKind::backward_weight) duration = cost.weight;
        }
        times[r][k] = {start, start + duration};
        changed = true;
      }
    }
  }
  return times;
}

}  // namespace trireme
