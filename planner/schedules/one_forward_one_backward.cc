#include "planner/schedules/generators.h"

namespace trireme {
namespace {

// One stage on each rank; rank r warms up with slope * (p-1-r) forwards and then alternates.
Schedule alternating(const char* name, int pipeline, int micro_batches, int slope,
                     const Deeper& deeper) {
  Schedule schedule{name, micro_batches, loop_placement(pipeline, 1), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(
        weave(grouped_ops(OpKind::forward, rank, pipeline, micro_batches, 1, micro_batches),
              grouped_ops(OpKind::backward, rank, pipeline, micro_batches, 1, micro_batches),
              slope * (pipeline - 1 - rank) + deeper_on(deeper, rank)));
  }
  return schedule;
}

}  // namespace

// PipeDream-Flush: rank r warms up with p-1-r forwards (Narayanan et al. 2021, Memory-Efficient
// Pipeline-Parallel DNN Training, section 3.2; Efficient Large-Scale Language Model Training,
// fig. 4 top).
Schedule one_forward_one_backward_schedule(int pipeline, int micro_batches, const Deeper& deeper) {
  return alternating("1f1b", pipeline, micro_batches, 1, deeper);
}

// Twice the warm-up: a rank runs ahead while its first micro-batch travels to the last rank and
// back, which hides a hop of up to (F+B)/2 for twice the activations. The warm-up of interleaved
// 1F1B (Narayanan et al. 2021, as in Megatron-LM) with a single chunk.
Schedule eager_schedule(int pipeline, int micro_batches, const Deeper& deeper) {
  return alternating("eager-1f1b", pipeline, micro_batches, 2, deeper);
}

// The same order without a flush: an update follows every backward, so the micro-batches in flight
// on rank r, p-r of them, see as many versions of the weights (Narayanan et al. 2019, PipeDream,
// sections 3.2 and 3.3, with one replica of each stage).
Schedule pipedream_schedule(int pipeline, int micro_batches, const Deeper& deeper) {
  Schedule schedule = alternating("pipedream", pipeline, micro_batches, 1, deeper);
  schedule.asynchronous = true;
  return schedule;
}

}  // namespace trireme
