#pragma once

#include "planner/plan/model.h"
#include "runtime/model/linear.h"
#include "runtime/model/norm.h"
#include "runtime/model/parameters.h"

namespace trireme {

// One transformer layer on one tensor rank, pre-norm:
//   x2 = x  + attention(norm1(x))
//   y  = x2 + mlp(norm2(x2))
// Tensor parallelism as in Shoeybi et al. 2019: query, key, value, gate and up are column-parallel
// (each rank has its heads and its part of ffn_hidden), output and down are row-parallel. Two sums
// over the tensor group in the forward pass, two in the backward pass. A rank whose share of heads
// is empty only takes part in the sums. Activations are [batch * sequence, hidden], the same on
// every tensor rank. Not thread-safe.
class DecoderLayer {
 public:
  // What a forward pass leaves for the backward pass of the same micro-batch.
  struct Saved {
    Norm::Saved norm1;
    Norm::Saved norm2;
    Activation normed1;
    Activation qkv;
    Activation logsumexp;
    Activation attended;
    Activation normed2;
    Activation up;      // before the activation function; gate and up for SwiGLU
    Activation hidden;  // after it
    OwedGradients owed;
  };

  DecoderLayer(const Model& model, const StageParameters& parameters, int layer,
               const LayerContext& context, HeadShare heads, int batch);

  Activation forward(const Activation& x, Saved& saved) const;
  // Gradient of the layer's input, given that of its output. All weight gradients are owed in
  // saved.owed, which then holds all that is left of the micro-batch; with `now`, some of them are
  // written there on the way, where the network makes room.
  Activation backward_input(const Activation& dy, Saved& saved, const GradientTarget* now) const;
  // Call after the weights changed.
  void weights_changed();

 private:
  Activation attention_forward(const Activation& x, Saved& saved) const;
  Activation mlp_forward(const Activation& x2, Saved& saved) const;
  Activation attention_backward(const Activation& d2, Saved& saved,
                                const GradientTarget* now) const;
  Activation mlp_backward(const Activation& dy, Saved& saved, const GradientTarget* now) const;

  LayerContext context_;
  Family family_;
  AttentionShape shape_;
  double rope_theta_;
  int rows_;
  int hidden_;
  int ffn_;  // this rank's part
  const float* output_bias_ = nullptr;
  const float* up_bias_ = nullptr;
  const float* down_bias_ = nullptr;
  const float* qkv_bias_ = nullptr;
  std::vector<Norm> norms_;
  std::vector<Linear> linears_;  // qkv, output, up (gate and up), down
};

}  // namespace trireme
