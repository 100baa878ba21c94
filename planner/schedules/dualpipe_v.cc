#include <queue>

#include "planner/schedules/generators.h"
#include "planner/schedules/v_program.h"

namespace trireme {
namespace {

// How many micro-batches apart a rank's ops are in the steady state. `far`: those that left it on
// the first arm and are not yet back on the second, forwards, and again backwards, the other way
// round. `near`: those between a forward of the second arm and the backward that follows it.
struct Leads {
  int far, near;
};

void fill(VProgram& program, const Leads& leads) {
  for (int i = 0; i < 2 * leads.far; ++i) program.forward(0);
  for (int i = 0; i < leads.near; ++i) {
    program.forward(0);
    program.forward(1);
  }
  for (int i = 0; i < leads.far; ++i) {
    program.backward_input(1);
    program.backward_weight(1);
    program.forward(1);
  }
}

void steady(VProgram& program, int rounds, const Leads& leads) {
  for (int i = 0; i < rounds; ++i) {
    // On the last rank the very first backward would wait for the forward it is paired with.
    if (i == 0 && leads.far == 0) {
      program.forward(0);
      program.backward(1);
    } else {
      program.forward_with_backward(0, 1);
    }
    program.forward_with_backward(1, 0);
  }
  for (int i = 0; i < leads.far; ++i) {
    program.backward(1);
    program.forward_with_backward(1, 0);
  }
}

// Full backwards first, then input gradients alone, whose weight gradients fill the rest, oldest
// first.
void drain(VProgram& program, const Leads& leads) {
  std::queue<int> waiting;  // chunks
  const auto backward_input = [&](int chunk) {
    program.backward_input(chunk);
    waiting.push(chunk);
  };
  const auto backward_weight = [&] {
    program.backward_weight(waiting.front());
    waiting.pop();
  };
  for (int i = 0; i < 2 * leads.near; ++i) {
    const int chunk = i % 2 == 0 ? 1 : 0;
    i < leads.near ? program.backward(chunk) : backward_input(chunk);
  }
  for (int i = 0; i < leads.far; ++i) {
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
//
// A hop each way and the ops at its ends take one beat, the time of two pairs, when messages take
// none. Where hops are long they need more: `deeper`[r] is how many more beats the way from rank r
// to the turn of the V and back has, none on the last rank and no less on earlier ones. The rank
// holds 2 deeper[0] activations more; 2 (p + deeper[0]) - 1 micro-batches have to be there.
Schedule dualpipe_v_schedule(int pipeline, int micro_batches, const Deeper& deeper) {
  Schedule schedule{"dualpipe-v", micro_batches, v_placement(pipeline, 2), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    VProgram program(rank, pipeline);
    const int more = deeper_on(deeper, rank);
    const Leads leads{pipeline - 1 - rank + more, rank + 1 + deeper_on(deeper, 0) - more};
    fill(program, leads);
    steady(program, micro_batches - 2 * leads.far - leads.near, leads);
    drain(program, leads);
    schedule.ranks.push_back(program.take());
  }
  return schedule;
}

}  // namespace trireme
