#include <algorithm>

#include "planner/schedules/generators.h"

namespace trireme {
namespace {

// The order in which one rank visits its chunks: `group` micro-batches through every chunk, then
// the next group.
std::vector<Op> grouped(OpKind kind, int rank, int pipeline, int micro_batches, int chunks,
                        int group) {
  std::vector<Op> ops;
  ops.reserve(static_cast<size_t>(micro_batches) * static_cast<size_t>(chunks));
  for (int first = 0; first < micro_batches; first += group) {
    const int end = std::min(first + group, micro_batches);
    for (int visit = 0; visit < chunks; ++visit) {
      const int chunk = kind == OpKind::forward ? visit : chunks - 1 - visit;
      for (int i = first; i < end; ++i) ops.push_back({kind, false, chunk * pipeline + rank, i});
    }
  }
  return ops;
}

}  // namespace

// Interleaved 1F1B (Narayanan et al. 2021, Efficient Large-Scale Language Model Training on GPU
// Clusters Using Megatron-LM, section 2.2.2 and fig. 4 bottom), for any group size. Rank r warms up
// with 2(p-1-r) + (v-1)g forwards.
Schedule interleaved_schedule(int pipeline, int micro_batches, int chunks, int group) {
  Schedule schedule{"interleaved", micro_batches, loop_placement(pipeline, chunks), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(
        weave(grouped(OpKind::forward, rank, pipeline, micro_batches, chunks, group),
              grouped(OpKind::backward, rank, pipeline, micro_batches, chunks, group),
              2 * (pipeline - 1 - rank) + (chunks - 1) * group));
  }
  return schedule;
}

}  // namespace trireme
