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

  // residual + the gradient through the norm (`residual` may be null); releases what was saved. The
  // gradients of the norm's own weights are a by-product of it: they wait in a row of their own.
  Activation backward(const Activation& dy, const float* residual, int rows, Saved& saved,
                      OwedGradients& owed) const {
    auto dx = device_->activation(dy->size());
    Activation zeros;
    if (residual == nullptr) {
      zeros = device_->activation(dy->size());
      device_->zero(zeros->data(), zeros->size());
      residual = zeros->data();
    }
    const auto columns = static_cast<size_t>(columns_);
    auto dweights = device_->activation(bias_offset_ ? 2 * columns : columns);
    float* dgamma = dweights->data();
    if (bias_offset_) {
      device_->layer_norm_backward(dx->data(), dgamma, dgamma + columns, dy->data(), residual,
                                   saved.x->data(), saved.statistics->data(),
                                   weights_ + weight_offset_, rows, columns_);
    } else {
      device_->rms_norm_backward(dx->data(), dgamma, dy->data(), residual, saved.x->data(),
                                 saved.statistics->data(), weights_ + weight_offset_, rows,
                                 columns_);
    }
    saved = {};
    owed.add([this, dweights = std::move(dweights), columns](const GradientTarget& target) {
      put(target, weight_offset_, dweights->data(), columns);
      if (bias_offset_) put(target, *bias_offset_, dweights->data() + columns, columns);
    });
    return dx;
  }

 private:
  void put(const GradientTarget& target, size_t offset, const float* from, size_t count) const {
    if (target.accumulate) {
      device_->add(target.gradients + offset, from, count);
    } else {
      device_->copy(target.gradients + offset, from, count);
    }
  }

  Device* device_;
  const float* weights_;
  size_t weight_offset_;
  std::optional<size_t> bias_offset_;
  int columns_;
  float epsilon_;
};

}  // namespace trireme
