#include <algorithm>

#include "planner/schedules/generators.h"

namespace trireme {

// All micro-batches through one chunk before the next chunk (Lamy-Poirier 2023, Breadth-First
// Pipeline Parallelism, section 4.1): data-parallel traffic of a chunk can start when the chunk is
// done. Backwards take each chunk's micro-batches newest first, as PyTorch's ScheduleLoopedBFS.
Schedule breadth_first_schedule(int pipeline, int micro_batches, int chunks) {
  Schedule schedule{"breadth-first", micro_batches, loop_placement(pipeline, chunks), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    const std::vector<Op> forwards =
        grouped_ops(OpKind::forward, rank, pipeline, micro_batches, chunks, micro_batches);
    std::vector<Op> program = forwards;
    program.insert(program.end(), forwards.rbegin(), forwards.rend());
    const auto half = program.begin() + static_cast<std::ptrdiff_t>(forwards.size());
    std::for_each(half, program.end(), [](Op& op) { op.kind = OpKind::backward; });
    schedule.ranks.push_back(std::move(program));
  }
  return schedule;
}

}  // namespace trireme
