#include "planner/schedules/generators.h"

namespace trireme {

// PipeDream-Flush: rank r warms up with p-1-r forwards and then alternates (Narayanan et al. 2021,
// Memory-Efficient Pipeline-Parallel DNN Training, section 3.2; Efficient Large-Scale Language
// Model Training, fig. 4 top).
Schedule one_forward_one_backward_schedule(int pipeline, int micro_batches) {
  Schedule schedule{"1f1b", micro_batches, loop_placement(pipeline, 1), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    std::vector<Op> forwards, backwards;
    for (int i = 0; i < micro_batches; ++i) {
      forwards.push_back({OpKind::forward, false, rank, i});
      backwards.push_back({OpKind::backward, false, rank, i});
    }
    schedule.ranks.push_back(weave(forwards, backwards, pipeline - 1 - rank));
  }
  return schedule;
}

}  // namespace trireme
