#include <algorithm>

#include "planner/schedules/generators.h"
#include "planner/schedules/v_program.h"

namespace trireme {
namespace {

void warm_up(VProgram& program, int rank, int pipeline) {
  for (int i = 0; i < 2 * (pipeline - rank) - 1; ++i) program.forward(0);
  for (int i = 0; i < rank; ++i) {
    program.forward(1);
    program.forward(0);
  }
  for (int i = rank; i < pipeline; ++i) {
    program.forward(1);
    program.backward_input(1);
    program.backward_weight(1);
  }
}

void steady(VProgram& program, int micro_batches) {
  while (program.forwards(1) < micro_batches) {
    if (program.forwards(0) < micro_batches) program.forward(0);
    program.backward_input(0);
    program.backward_weight(0);
    program.forward(1);
    program.backward_input(1);
    program.backward_weight(1);
  }
}

void drain(VProgram& program, int rank, int pipeline) {
  for (int i = 0; i < rank; ++i) {
    program.backward_input(0);
    program.backward_input(1);
  }
  for (int i = rank; i < pipeline; ++i) {
    program.backward_input(0);
    program.backward_weight(0);
  }
  while (program.waiting(1) > 0) program.backward_weight(1);
  while (program.waiting(0) > 0) program.backward_weight(0);
}

}  // namespace

// ZB-V: the two stages of a rank lie on either arm of a V, so that a micro-batch starts and ends on
// rank 0 and all ranks hold the same; no idle time between a rank's first and last op when F = I =
// W (Qi et al. 2023, Zero Bubble Pipeline Parallelism, section 6; the order is that of PyTorch's
// ScheduleZBVZeroBubble). It takes 2p-1 micro-batches to fill; fewer are what is left when the
// others are struck out.
Schedule zb_v_schedule(int pipeline, int micro_batches) {
  Schedule schedule{"zb-v", micro_batches, v_placement(pipeline, 2), {}};
  const int filling = std::max(micro_batches, 2 * pipeline - 1);
  for (int rank = 0; rank < pipeline; ++rank) {
    VProgram program(rank, pipeline);
    warm_up(program, rank, pipeline);
    steady(program, filling);
    drain(program, rank, pipeline);
    std::vector<Op>& ops = schedule.ranks.emplace_back(program.take());
    ops.erase(std::remove_if(ops.begin(), ops.end(),
                             [&](const Op& op) { return op.micro_batch >= micro_batches; }),
              ops.end());
  }
  return schedule;
}

}  // namespace trireme
