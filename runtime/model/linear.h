#pragma once

#include <optional>

#include "runtime/model/layer_context.h"

namespace trireme {

// A local linear layer y = x w^T over one matrix of the stage's flat weights, [out, in] at
// `weight_offset`, with an optional bias whose gradient is the column sum of dy. Whether the
// sharding is by rows (column-parallel) or by columns (row-parallel) is the business of who calls
// it.
class Linear {
 public:
  Linear(const LayerContext& context, size_t weight_offset, std::optional<size_t> bias_offset,
         int out, int in)
      : device_(context.device),
        gradient_offset_(weight_offset),
        bias_offset_(bias_offset),
        out_(out),
        in_(in),
        weight_(device_->weight(context.weights + weight_offset, out, in, context.reuse_weights)) {}

  int out() const { return out_; }
  int in() const { return in_; }
  void changed() { weight_->changed(); }
  // Where the gradient of a matrix goes that shares its weights, but not its gradient, with others.
  void put_gradient_at(size_t offset) { gradient_offset_ = offset; }

  Activation forward(const Activation& x, int rows) const {
    auto y = device_->activation(static_cast<size_t>(rows) * out_);
    device_->linear_forward(y->data(), x->data(), *weight_, rows);
    return y;
  }
  Activation input_gradient(const Activation& dy, int rows) const {
    auto dx = device_->activation(static_cast<size_t>(rows) * in_);
    device_->linear_input_gradient(dx->data(), dy->data(), *weight_, rows);
    return dx;
  }
  // Owes dw = dy^T * x and keeps dy and x until it is done. The layer must outlive it.
  void owe_gradient(Activation dy, Activation x, int rows, OwedGradients& owed) const {
    owed.add([this, dy = std::move(dy), x = std::move(x), rows](const GradientTarget& target) {
      device_->linear_weight_gradient(target.gradients + gradient_offset_, dy->data(), x->data(),
                                      rows, out_, in_, target.accumulate);
      if (bias_offset_) {
        device_->bias_gradient(target.gradients + *bias_offset_, dy->data(), rows, out_,
                               target.accumulate);
      }
    });
  }

 private:
  Device* device_;
  size_t gradient_offset_;
  std::optional<size_t> bias_offset_;
  int out_;
  int in_;
  std::unique_ptr<Weight> weight_;
};

}  // namespace trireme
