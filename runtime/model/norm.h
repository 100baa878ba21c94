#pragma once

#include <optional>

#include "runtime/model/layer_context.h"

namespace trireme {

// LayerNorm where the stage has a bias for it, RMSNorm where it has none. Replicated over the
// tensor group: all its members see the same input and the same dy, so each has the whole gradient.
class Norm {
 public:
  Norm(const LayerContext& context, size_t weight_offset, std::optional<size_t> bias_offset,
       int columns, double epsilon)
      : device_(context.device),
        weights_(context.weights),
        weight_offset_(weight_offset),
        bias_offset_(bias_offset),
        columns_(columns),
        epsilon_(static_cast<float>(epsilon)) {}

  struct Saved {
    Activation x;
    Activation statistics;
  };

  Activation forward(const Activation& x, int rows, Saved& saved) const {
    auto y = device_->activation(x->size());
    saved = {x, device_->activation(static_cast<size_t>(rows) * 2)};
    if (bias_offset_) {
      device_->layer_norm_forward(y->data(), saved.statistics->data(), x->data(),
                                  weights_ + weight_offset_, weights_ + *bias_offset_, rows,
                                  columns_, epsilon_);
    } else {
      device_->rms_norm_forward(y->data(), saved.statistics->data(), x->data(),
                                weights_ + weight_offset_, rows, columns_, epsilon_);
    }
    return y;
  }

  // residual + the gradient through the norm; releases what was saved.
  Activation backward(const Activation& dy, const float* residual, int rows, Saved& saved,
                      const GradientTarget& target) const {
    auto dx = device_->activation(dy->size());
    float* dgamma = target.gradients + weight_offset_;
    if (bias_offset_) {
      device_->layer_norm_backward(dx->data(), dgamma, target.gradients + *bias_offset_, dy->data(),
                                   residual, saved.x->data(), saved.statistics->data(),
                                   weights_ + weight_offset_, rows, columns_, target.accumulate);
    } else {
      device_->rms_norm_backward(dx->data(), dgamma, dy->data(), residual, saved.x->data(),
                                 saved.statistics->data(), weights_ + weight_offset_, rows,
                                 columns_, target.accumulate);
    }
    saved = {};
    return dx;
  }

 private:
  Device* device_;
  const float* weights_;
  size_t weight_offset_;
  std::optional<size_t> bias_offset_;
  int columns_;
  float epsilon_;
};

}  // namespace trireme
