#pragma once

#include <vector>

#include "planner/plan/job.h"
#include "planner/plan/layout.h"
#include "planner/plan/model.h"
#include "planner/simulator.h"
#include "topology/cluster.h"

namespace trireme {

// What a gradient takes until it is reduced.
inline int gradient_bytes(Dtype dtype, const Execution& execution) {
  return dtype == Dtype::fp32 || execution.gradient_dtype == Dtype::fp32 ? 4 : 2;
}

// What one rank does for one micro-batch of one part of the model, counted as a list of kernels.
struct Kernel {
  enum class Kind { stream, matmul, attention };
  Kind kind = Kind::stream;
  double flops = 0;
  double bytes = 0;
  double m = 0, k = 0, n = 0, count = 1;  // matmul: `count` products of [m,k] with [k,n]
  double result = 0;                      // matmul: those of the bytes that its result moves
  double slack = 1;     // attention on accelerators: time of a FLOP over that in a large shape
  double launches = 1;  // kernels that the host issues for it
};

// Forward, input gradient and weight gradient apart, so that schedules that split the backward can
// be timed.
struct PartKernels {
  std::vector<Kernel> forward, input, weight;
};

// The largest share that any rank of a tensor group has: query-head groups, feed-forward columns
// and vocabulary rows are split as evenly as can be, so the first rank has the ceiling.
struct TensorShare {
  int query = 0;  // columns of the query projection: heads * head_dim
  int kv = 0;     // columns of the key (and of the value) projection
  int ffn = 0;
  int vocab = 0;
};
TensorShare largest_share(const Model& model, int tensor);

struct WorkShape {
  int micro_batch = 1;
  int tensor = 1;
  bool sequence_parallel =
      false;  // norms and residuals on 1/tensor of the tokens (Korthikanti et al. 2022)
  Recompute recompute = Recompute::none;
  Dtype dtype = Dtype::fp32;
  Execution execution = {};
  bool trains = true;  // or evaluates: nothing comes back, so forwards keep nothing

  int element_bytes() const { return dtype == Dtype::fp32 ? 4 : 2; }
};

// A matrix product and both its gradients, for so many tokens.
PartKernels linear_kernels(const WorkShape& shape, double tokens, double inputs, double outputs);
PartKernels layer_kernels(const Model& model, const WorkShape& shape);
PartKernels embedding_kernels(const Model& model, const WorkShape& shape);
PartKernels head_kernels(const Model& model, const WorkShape& shape);

// How fast a device runs kernels of a dtype. `slowdown` > 1 when CPU slots share fewer cores.
//
// A kernel takes the longer of its arithmetic and its memory traffic (roofline, Williams et al.
// 2009) plus the time to start it. A matrix product is cut into tiles that the multiprocessors work
// off in waves, the last of which may be nearly empty (NVIDIA, Matrix Multiplication Background
// User's Guide, "Tile and wave quantization"): smaller tiles quantise finer but sustain less, a
// split of k makes more tiles, every tile fills its pipeline first, and half the time in which its
// result leaves is not hidden. The best choice counts, as
// the library's heuristic would have it. A part takes the longer of its kernels on the device and
// of their issue on the host, which runs ahead of the device, or both, where the host waits for
// each kernel.
struct DeviceSpeed {
  double flops = 0;            // sustained by large matrix products
  double attention_flops = 0;  // sustained by fused attention
  double bytes_per_s = 0;      // memory, streaming
  double start_s = 0;          // from one kernel to the next on the device
  double issue_s = 0;          // host time for each kernel
  bool issue_ahead = true;
  int multiprocessors = 0;

  double seconds(const Kernel& kernel) const;
  double seconds(const std::vector<Kernel>& kernels) const;

 private:
  double product_seconds(const Kernel& kernel) const;
};
DeviceSpeed device_speed(const Device& device, Dtype dtype, double slowdown,
                         const Execution& execution);

// The figure that MFU is a share of: the device's dense peak for the dtype.
double peak_flops(const Device& device, Dtype dtype);

// Model FLOPs of one token, forward and backward, attention counted in full: three times the
// forward's
//   layers * (2 * matrix parameters of a layer + 4 * sequence * query width) + 2 * hidden * vocab
// For a GPT with ffn = 4 hidden that is 72 l h^2 (1 + s/(6h) + V/(12lh)): Narayanan et al. 2021
// (Megatron-LM), equation 3, whose 96 counts one more forward for recomputation; per token as in
// PaLM (Chowdhery et al. 2022), appendix B. Hardware FLOPs add what recomputation repeats: the
// layers' forward (full) or their attention products (selective).
double model_flops_per_token(const Model& model);
// Where this share of the layers recomputes.
double hardware_flops_per_token(const Model& model, Recompute recompute, double share = 1);

}  // namespace trireme
