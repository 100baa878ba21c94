#include <queue>

#include "planner/schedules/generators.h"
#include "planner/schedules/v_program.h"

namespace trireme {
namespace {

void fill(VProgram& program, int before, int after) {
  for (int i = 0; i < 2 * after; ++i) program.forward(0);
  for (int i = 0; i <= before; ++i) {
    program.forward(0);
    program.forward(1);
  }
  for (int i = 0; i < after; ++i) {
    program.backward_input(1);
    program.backward_weight(1);
    program.forward(1);
  }
}

void steady(VProgram& program, int rounds, int after) {
  for (int i = 0; i < rounds; ++i) {
    // On the last rank the very first backward would wait for the forward it is paired with.
    if (i == 0 && after == 0) {
      program.forward(0);
      program.backward(1);
    } else {
      program.forward_with_backward(0, 1);
    }
    program.forward_with_backward(1, 0);
  }
  for (int i = 0; i < after; ++i) {
    program.backward(1);
    program.forward_with_backward(1, 0);
  }
}

// Full backwards first, then input gradients alone, whose weight gradients fill the rest, oldest
// first.
void drain(VProgram& program, int before, int after) {
  std::queue<int> waiting;  // chunks
  const auto backward_input = [&](int chunk) {
    program.backward_input(chunk);
    waiting.push(chunk);
  };
  const auto backward_weight = [&] {
    program.backward_weight(waiting.front());
    waiting.pop();
  };
  const int full = 2 * ((before + 1) / 2) + (before % 2 == 0 ? 1 : 0);
  for (int i = 0; i < 2 * (before + 1); ++i) {
    const int chunk = i % 2 == 0 ? 1 : 0;
    i < full ? program.backward(chunk) : backward_input(chunk);
  }
  for (int i = 0; i < after; ++i) {
    backward_weight();
    backward_input(0);
  }
  while (!waiting.empty()) backward_weight();
}

}  // namespace

// DualPipe cut in half: each rank holds one stage of each arm of a V, and the forward of one arm
// runs with the backward of the other, so that either hides the other's communication (DeepSeek-AI
// 2024, DeepSeek-V3 Technical Report, section 3.2.1, and its open-source DualPipeV; PyTorch's
// ScheduleDualPipeV has the same order). Needs 2p micro-batches or more.
Schedule dualpipe_v_schedule(int pipeline, int micro_batches) {
  Schedule schedule{"dualpipe-v", micro_batches, v_placement(pipeline, 2), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    VProgram program(rank, pipeline);
    const int after = pipeline - 1 - rank;
    fill(program, rank, after);
    steady(program, micro_batches - 2 * pipeline + rank + 1, after);
    drain(program, rank, after);
    schedule.ranks.push_back(program.take());
  }
  return schedule;
}

}  // namespace trireme
