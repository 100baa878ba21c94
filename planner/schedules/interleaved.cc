#include "planner/schedules/generators.h"

namespace trireme {

// Interleaved 1F1B (Narayanan et al. 2021, Efficient Large-Scale Language Model Training on GPU
// Clusters Using Megatron-LM, section 2.2.2 and fig. 4 bottom), for any group size. Rank r warms up
// with 2(p-1-r) + (v-1)g forwards.
Schedule interleaved_schedule(int pipeline, int micro_batches, int chunks, int group,
                              const Deeper& deeper) {
  Schedule schedule{"interleaved", micro_batches, loop_placement(pipeline, chunks), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(
        weave(grouped_ops(OpKind::forward, rank, pipeline, micro_batches, chunks, group),
              grouped_ops(OpKind::backward, rank, pipeline, micro_batches, chunks, group),
              2 * (pipeline - 1 - rank) + (chunks - 1) * group + deeper_on(deeper, rank)));
  }
  return schedule;
}

// The forwards of the interleaved schedule alone: inference, or validation during training.
Schedule forward_only_schedule(int pipeline, int micro_batches, int chunks, int group) {
  Schedule schedule{"forward-only", micro_batches, loop_placement(pipeline, chunks), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(
        grouped_ops(OpKind::forward, rank, pipeline, micro_batches, chunks, group));
  }
  return schedule;
}

}  // namespace trireme
