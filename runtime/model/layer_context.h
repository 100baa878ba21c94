#pragma once

#include <functional>
#include <span>
#include <utility>
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

// What a micro-batch's weight-gradient pass still has to do. The input-gradient pass notes each
// piece together with the memory that it needs and nothing else needs any more.
class OwedGradients {
 public:
  using Piece = std::function<void(const GradientTarget&)>;
  void add(Piece piece) { pieces_.push_back(std::move(piece)); }
  // Does the pieces, the oldest first, and releases the memory of each once it is done.
  void settle(const GradientTarget& target) {
    for (auto& piece : pieces_) std::exchange(piece, nullptr)(target);
    pieces_.clear();
  }

 private:
  std::vector<Piece> pieces_;
};

// Sums `data` over the tensor group.
inline void tensor_sum(const LayerContext& context, std::span<float> data) {
  context.tensor->all_reduce(data, ReduceOp::sum);
}

// The same in a backward pass. With `now`, what is owed already is written there while the network
// works: it does not depend on the sum.
inline void tensor_sum(const LayerContext& context, std::span<float> data, OwedGradients& owed,
                       const GradientTarget* now) {
  const auto work = context.tensor->begin_all_reduce(data, ReduceOp::sum);
  if (now != nullptr) owed.settle(*now);
  work->wait();
}

}  // namespace trireme
