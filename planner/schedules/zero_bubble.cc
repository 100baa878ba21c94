#include "planner/schedules/generators.h"

namespace trireme {

// Weight gradients, which nobody waits for, fill what would be idle: rank r issues r of them late.
// For one chunk this is ZB-H1 (Qi et al. 2023, Zero Bubble Pipeline Parallelism, section 2.1 and
// fig. 2), for several the order of PyTorch's ScheduleInterleavedZeroBubble. Rank r warms up with
// (v-1)g + p-1-r forwards, so that every rank holds as much as rank 0.
Schedule interleaved_zb_schedule(int pipeline, int micro_batches, int chunks, int group,
                                 const Deeper& deeper) {
  Schedule schedule{"interleaved-zb", micro_batches, loop_placement(pipeline, chunks), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(weave_split(
        grouped_ops(OpKind::forward, rank, pipeline, micro_batches, chunks, group),
        grouped_ops(OpKind::backward_input, rank, pipeline, micro_batches, chunks, group),
        (chunks - 1) * group + pipeline - 1 - rank + deeper_on(deeper, rank), rank));
  }
  return schedule;
}

Schedule zb_h1_schedule(int pipeline, int micro_batches, const Deeper& deeper) {
  Schedule schedule = interleaved_zb_schedule(pipeline, micro_batches, 1, micro_batches, deeper);
  schedule.name = "zb-h1";
  return schedule;
}

// ZB-H2 in closed form (the idea: Qi et al. 2023, section 2.2 and fig. 3): 2(p-r)-1 forwards come
// before the first backward and 2r weight gradients are issued late, which leaves no idle time
// between a rank's first and last op when F = I = W, for the activations of 2p-1 micro-batches.
Schedule zb_h2_schedule(int pipeline, int micro_batches, const Deeper& deeper) {
  Schedule schedule{"zb-h2", micro_batches, loop_placement(pipeline, 1), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(weave_split(
        grouped_ops(OpKind::forward, rank, pipeline, micro_batches, 1, micro_batches),
        grouped_ops(OpKind::backward_input, rank, pipeline, micro_batches, 1, micro_batches),
        2 * (pipeline - 1 - rank) + deeper_on(deeper, rank), 2 * rank));
  }
  return schedule;
}

}  // namespace trireme
