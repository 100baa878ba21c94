#include "planner/schedules/generators.h"

namespace trireme {

// All forwards, then all backwards (Huang et al. 2019, GPipe: Efficient Training of Giant Neural
// Networks using Pipeline Parallelism, fig. 2c). Backwards run in ascending order; descending order
// takes the same time.
Schedule gpipe_schedule(int pipeline, int micro_batches) {
  Schedule schedule{"gpipe", micro_batches, loop_placement(pipeline, 1), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    std::vector<Op>& program = schedule.ranks.emplace_back();
    for (const OpKind kind : {OpKind::forward, OpKind::backward}) {
      for (int i = 0; i < micro_batches; ++i) program.push_back({kind, false, rank, i});
    }
  }
  return schedule;
}

}  // namespace trireme
