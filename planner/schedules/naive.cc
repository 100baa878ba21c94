#include "planner/schedules/generators.h"

namespace trireme {

// One micro-batch at a time through the whole pipeline: the baseline that every other schedule
// improves on ("naive model parallelism" in Huang et al. 2019, GPipe, fig. 2b).
Schedule naive_schedule(int pipeline, int micro_batches) {
  Schedule schedule{"naive", micro_batches, loop_placement(pipeline, 1), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    std::vector<Op>& program = schedule.ranks.emplace_back();
    for (int i = 0; i < micro_batches; ++i) {
      program.push_back({OpKind::forward, false, rank, i});
      program.push_back({OpKind::backward, false, rank, i});
    }
  }
  return schedule;
}

}  // namespace trireme
