#include "planner/cost/kernels.h"

#include <algorithm>

namespace trireme {
namespace {

// Share of the peak that large matrix products sustain, as seen in the papers' end-to-end figures
// (52 % of peak for whole steps in Narayanan et al. 2021, 54-56 % in Korthikanti et al. 2022, of
// which the products are the larger part) and with oneDNN on CPU cores.
constexpr double kGpuMatmulEfficiency = 0.7;
constexpr double kCpuMatmulEfficiency = 0.8;
constexpr double kGpuLaunch = 4e-6;
constexpr double kCpuLaunch = 1e-6;

// [m,k] x [k,n], everything read and written once.
Kernel matmul(double m, double k, double n, double element_bytes) {
  return {2 * m * k * n, element_bytes * (m * k + k * n + m * n)};
}

// Gradients of a linear layer of k inputs and n outputs for m tokens: both are products of the same
// size.
void add_linear(PartKernels& part, double m, double k, double n, double element_bytes) {
  part.forward.push_back(matmul(m, k, n, element_bytes));
  part.input.push_back(matmul(m, n, k, element_bytes));
  part.weight.push_back(matmul(k, m, n, element_bytes));
}

// Element-wise: the backward moves about twice what the forward does (it reads the saved input as
// well).
void add_elementwise(PartKernels& part, double forward_bytes) {
  part.forward.push_back({0, forward_bytes});
  part.input.push_back({0, 2 * forward_bytes});
}

// Fused causal attention over whole sequences: scores and weighted sum, half of each masked away;
// the backward repeats the scores and forms four products (Dao et al. 2022, FlashAttention,
// algorithm 4): 5/2 of the forward.
Kernel attention_forward(const Model& model, const WorkShape& shape, const TensorShare& share) {
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  return {2.0 * tokens * model.sequence * share.query,
          tokens * (2.0 * share.query + 2.0 * share.kv) * shape.element_bytes()};
}

}  // namespace

TensorShare largest_share(const Model& model, int tensor) {
  const int groups = split_evenly(model.kv_heads, tensor, 0).size();
  const int heads_per_group = model.heads / model.kv_heads;
  return {groups * heads_per_group * model.head_dim, groups * model.head_dim,
          split_evenly(model.ffn_hidden, tensor, 0).size(),
          split_evenly(model.vocab, tensor, 0).size()};
}

PartKernels layer_kernels(const Model& model, const WorkShape& shape) {
  const TensorShare share = largest_share(model, shape.tensor);
  const bool llama = model.family == Family::llama;
  const double e = shape.element_bytes();
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double norm_tokens = shape.sequence_parallel ? tokens / shape.tensor : tokens;
  const double hidden = model.hidden;

  PartKernels part;
  add_elementwise(part, 2 * norm_tokens * hidden * e);  // norm
  add_linear(part, tokens, hidden, share.query + 2.0 * share.kv, e);
  if (llama) add_elementwise(part, 2 * tokens * (share.query + share.kv) * e);  // rotary
  const Kernel attention = attention_forward(model, shape, share);
  part.forward.push_back(attention);
  part.input.push_back({2.5 * attention.flops, 2 * attention.bytes});
  add_linear(part, tokens, share.query, hidden, e);
  add_elementwise(part, 5 * norm_tokens * hidden * e);  // residual, norm
  add_linear(part, tokens, hidden, (llama ? 2.0 : 1.0) * share.ffn, e);
  add_elementwise(part, (llama ? 3.0 : 2.0) * tokens * share.ffn * e);  // activation
  add_linear(part, tokens, share.ffn, hidden, e);
  add_elementwise(part, 3 * norm_tokens * hidden * e);  // residual

  if (shape.recompute == Recompute::full) {
    part.input.insert(part.input.end(), part.forward.begin(), part.forward.end());
  } else if (shape.recompute == Recompute::selective) {
    part.input.push_back(attention);
  }
  return part;
}

PartKernels embedding_kernels(const Model& model, const WorkShape& shape) {
  const double bytes =
      2.0 * shape.micro_batch * model.sequence * model.hidden * shape.element_bytes();
  return {{{0, bytes}}, {}, {{0, bytes}}};
}

PartKernels head_kernels(const Model& model, const WorkShape& shape) {
  const TensorShare share = largest_share(model, shape.tensor);
  const double e = shape.element_bytes();
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  PartKernels part;
  add_elementwise(part, 2 * tokens * model.hidden * e);  // norm
  add_linear(part, tokens, model.hidden, share.vocab, e);
  part.forward.push_back({0, 3 * tokens * share.vocab * 4.0});  // softmax and loss, in fp32
  part.input.push_back({0, 2 * tokens * share.vocab * 4.0});
  return part;
}

double DeviceSpeed::seconds(const Kernel& kernel) const {
  return std::max(kernel.flops / flops, kernel.bytes / bytes_per_s) + launch_s;
}

double DeviceSpeed::seconds(const std::vector<Kernel>& kernels) const {
  double sum = 0;
  for (const Kernel& kernel : kernels) sum += seconds(kernel);
  return sum;
}

double peak_flops(const Device& device, Dtype dtype) {
  return dtype == Dtype::bf16 && device.bf16_flops > 0 ? device.bf16_flops : device.fp32_flops;
}

DeviceSpeed device_speed(const Device& device, Dtype dtype, double slowdown) {
  const double efficiency = device.is_cpu() ? kCpuMatmulEfficiency : kGpuMatmulEfficiency;
  return {peak_flops(device, dtype) * efficiency / slowdown, device.memory_bytes_per_s / slowdown,
          (device.is_cpu() ? kCpuLaunch : kGpuLaunch) * slowdown};
}

namespace {

double attention_flops(const Model& model) {
  return 4.0 * model.sequence * model.heads * model.head_dim;
}

double layer_forward_flops(const Model& model) {
  const double query = static_cast<double>(model.heads) * model.head_dim;
  const double kv = static_cast<double>(model.kv_heads) * model.head_dim;
  const double matrices =
      model.hidden * (2 * query + 2 * kv) +
      (model.family == Family::llama ? 3.0 : 2.0) * model.hidden * model.ffn_hidden;
  return 2 * matrices + attention_flops(model);
}

}  // namespace

double model_flops_per_token(const Model& model) {
  return 3 * (model.layers * layer_forward_flops(model) + 2.0 * model.hidden * model.vocab);
}

double hardware_flops_per_token(const Model& model, Recompute recompute) {
  const double model_flops = model_flops_per_token(model);
  switch (recompute) {
    case Recompute::none:
      return model_flops;
    case Recompute::selective:
      return model_flops + model.layers * attention_flops(model);
    case Recompute::full:
      return model_flops + model.layers * layer_forward_flops(model);
  }
  return model_flops;
}

}  // namespace trireme
