#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"

namespace trireme {

// What the layers of a stage share: the device, the tensor group, and the stage's flat weights.
struct LayerContext {
  Device* device = nullptr;
  Communicator* tensor = nullptr;
  const float* weights = nullptr;
  bool reuse_weights = false;  // the step multiplies with each weight several times
};

// Where one micro-batch's gradients of a stage go: flat memory with the offsets of StageParameters.
struct GradientTarget {
  float* gradients = nullptr;
  bool accumulate = false;  // add to what is there instead of overwriting it
};

// A matrix product that the stage owes: dw = dy^T * x. The input-gradient pass notes it, the
// weight-gradient pass (or a moment in which the first one waits for the network) does it.
struct WeightWork {
  std::function<void(const GradientTarget&)> run;
};
using WeightWorkList = std::vector<WeightWork>;

inline void run_all(WeightWorkList& list, const GradientTarget& target) {
  for (const auto& work : list) work.run(target);
  list.clear();
}

// Sums `data` over the tensor group. Products that are owed already are done while the network
// works, when `meanwhile` says so (a full backward): they do not depend on the sum.
inline void tensor_sum(const LayerContext& context, std::span<float> data,
                       const std::function<void()>& meanwhile) {
  const auto work = context.tensor->begin_all_reduce(data, ReduceOp::sum);
  if (meanwhile) meanwhile();
  work->wait();
}

}  // namespace trireme
