#include "planner/cost/kernels.h"

#include <algorithm>
#include <cmath>

namespace trireme {
namespace {

constexpr double kGpuStart = 2e-6;  // kernel to kernel in one CUDA stream, nominal
constexpr double kCpuLaunch = 1e-6;

// Tiles of a product that one multiprocessor works on, and what they sustain of the best: the
// ratio of arithmetic to operands falls with the tile's sides (CUTLASS, "Efficient GEMM").
struct Tile {
  double m, n, efficiency;
};
constexpr Tile kTiles[] = {{256, 128, 1.0}, {128, 256, 1.0}, {128, 128, 0.96},
                           {128, 64, 0.84}, {64, 128, 0.84}, {64, 64, 0.68}};
// A tile's result leaves once its sums are done, behind the arithmetic of the multiprocessor's next
// tile or not: about half of it does not hide (docs/measurements/hopper.md).
constexpr double kExposed = 0.5;
constexpr double kFill =
    96;  // steps of k until the tile's pipeline runs: three of four stages of 32

// Drawing a dropout mask costs arithmetic that memory traffic does not hide: the forward kernel
// takes longer than its bytes, the backward reads the mask back.
constexpr double kDraw = 1.5;

Kernel matmul(double m, double k, double n, double element_bytes, double count = 1) {
  return {.kind = Kernel::Kind::matmul,
          .flops = 2 * m * k * n * count,
          .bytes = element_bytes * (m * k + k * n + m * n) * count,
          .m = m,
          .k = k,
          .n = n,
          .count = count,
          .result = element_bytes * m * n * count};
}

Kernel stream(double bytes, double launches = 1) {
  return {.bytes = bytes, .launches = launches};
}

// Element-wise: the backward moves about twice what the forward does (it reads the saved input as
// well).
void add_elementwise(PartKernels& part, double forward_bytes, double launches = 1) {
  part.forward.push_back(stream(forward_bytes, launches));
  part.input.push_back(stream(2 * forward_bytes, launches));
}

// Residual and dropout: two reads and a write, and a byte for each mask.
void add_residual(PartKernels& part, const WorkShape& shape, double elements) {
  add_elementwise(part, elements * (3 * shape.element_bytes() + (shape.execution.dropout ? 1 : 0)));
}

// Passes over a tensor of 2-byte elements by one fused kernel, and by plain PyTorch operators: a
// norm in fp32 is a cast, square, mean, scale, cast and weight, 34 bytes instead of 4; rotary
// positions are a shuffle, two products and a sum, 18 instead of 4; SwiGLU two kernels, 10 bytes
// instead of 6.
struct Unfused {
  double norm, rotary, activation;
};
Unfused unfused_factors(const WorkShape& shape) {
  return shape.execution.fused_elementwise ? Unfused{1, 1, 1}
                                           : Unfused{34.0 / 4, 18.0 / 4, 10.0 / 6};
}

// What fused attention takes for its FLOPs, as a multiple of what forward and backward together
// take for a sequence of 8192 and heads of 128. Blocks on the diagonal are computed whole and half
// of them masked, and every block of queries fills and drains its pipeline, so short sequences cost
// more for each FLOP; exponentials, as many for a small head as for a large one, bound small heads.
// Measured on H100 and H200 (docs/measurements/hopper.md).
double attention_slack(const Model& model, double pass, double tokens_lost) {
  return pass * (1 + tokens_lost / model.sequence) * (model.head_dim + 64.0) /
         (1.5 * model.head_dim);
}

// Causal attention over whole sequences, in one fused kernel: scores and weighted sum, half of
// each masked away; the backward repeats the scores and forms four products (Dao et al. 2022,
// FlashAttention, algorithm 4): 5/2 of the forward.
PartKernels fused_attention(const Model& model, const WorkShape& shape, const TensorShare& share) {
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double bytes = tokens * (2.0 * share.query + 2.0 * share.kv) * shape.element_bytes();
  const double flops = 2.0 * tokens * model.sequence * share.query;
  PartKernels part;
  part.forward = {{.kind = Kernel::Kind::attention,
                   .flops = flops,
                   .bytes = bytes,
                   .slack = attention_slack(model, 0.8, 400),
                   .launches = 4}};
  part.input = {{.kind = Kernel::Kind::attention,
                 .flops = 2.5 * flops,
                 .bytes = 2 * bytes,
                 .slack = attention_slack(model, 0.94, 1100),
                 .launches = 6}};
  return part;
}

// The same with stored scores, as before 2023: two products of all heads, between them the masked
// softmax (read, written) and dropout (read, written, a byte for the mask); nothing is skipped.
PartKernels unfused_attention(const Model& model, const WorkShape& shape,
                              const TensorShare& share) {
  const double e = shape.element_bytes(), s = model.sequence, d = model.head_dim;
  const double heads = static_cast<double>(share.query) / d * shape.micro_batch;
  const double scores = heads * s * s;
  const double dropped = shape.execution.dropout ? scores * (2 * e + 1) : 0;
  const double drawn = kDraw * dropped;
  // Scale and mask as passes of their own.
  const double masked = shape.execution.fused_softmax ? 0 : 4 * scores * e;
  PartKernels part;
  part.forward = {matmul(s, d, s, e, heads), stream(2 * scores * e + masked, 3), stream(drawn, 2),
                  matmul(s, s, d, e, heads), stream(6.0 * s * d * heads * e, 3)};
  part.input = {
      matmul(s, d, s, e, heads),         matmul(s, s, d, e, heads), stream(dropped, 2),
      stream(3 * scores * e, 3),         matmul(s, s, d, e, heads), matmul(s, s, d, e, heads),
      stream(8.0 * s * d * heads * e, 4)};
  return part;
}

void append(std::vector<Kernel>& list, const std::vector<Kernel>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

void add_linear(PartKernels& part, const WorkShape& shape, double tokens, double inputs,
                double outputs) {
  const PartKernels linear = linear_kernels(shape, tokens, inputs, outputs);
  append(part.forward, linear.forward);
  append(part.input, linear.input);
  append(part.weight, linear.weight);
}

}  // namespace

TensorShare largest_share(const Model& model, int tensor) {
  const int groups = split_evenly(model.kv_heads, tensor, 0).size();
  const int heads_per_group = model.heads / model.kv_heads;
  return {groups * heads_per_group * model.head_dim, groups * model.head_dim,
          split_evenly(model.ffn_hidden, tensor, 0).size(),
          split_evenly(model.vocab, tensor, 0).size()};
}

// The weight gradient is added to what earlier micro-batches left, by the product itself where
// kernels are fused.
PartKernels linear_kernels(const WorkShape& shape, double tokens, double inputs, double outputs) {
  const double e = shape.element_bytes();
  const double g = gradient_bytes(shape.dtype, shape.execution);
  PartKernels part{{matmul(tokens, inputs, outputs, e)},
                   {matmul(tokens, outputs, inputs, e)},
                   {matmul(inputs, tokens, outputs, e)}};
  Kernel& weight = part.weight.front();
  if (shape.execution.fused_elementwise) {
    weight.bytes += (2 * g - e) * inputs * outputs;
    weight.result = 2 * g * inputs * outputs;
  } else {
    part.weight.push_back(stream((e + 2 * g) * inputs * outputs));
  }
  return part;
}

PartKernels layer_kernels(const Model& model, const WorkShape& shape) {
  const TensorShare share = largest_share(model, shape.tensor);
  const bool llama = model.family == Family::llama;
  const double e = shape.element_bytes();
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double norm_tokens = shape.sequence_parallel ? tokens / shape.tensor : tokens;
  const double hidden = model.hidden;
  const PartKernels attention = shape.execution.attention == Attention::fused
                                    ? fused_attention(model, shape, share)
                                    : unfused_attention(model, shape, share);

  const Unfused times = unfused_factors(shape);

  PartKernels part;
  add_elementwise(part, times.norm * 2 * norm_tokens * hidden * e, 2);
  add_linear(part, shape, tokens, hidden, share.query + 2.0 * share.kv);
  if (llama) add_elementwise(part, times.rotary * 2 * tokens * (share.query + share.kv) * e, 2);
  append(part.forward, attention.forward);
  append(part.input, attention.input);
  add_linear(part, shape, tokens, share.query, hidden);
  add_residual(part, shape, norm_tokens * hidden);
  add_elementwise(part, times.norm * 2 * norm_tokens * hidden * e, 2);
  add_linear(part, shape, tokens, hidden, (llama ? 2.0 : 1.0) * share.ffn);
  add_elementwise(part, times.activation * (llama ? 3.0 : 2.0) * tokens * share.ffn * e);
  add_linear(part, shape, tokens, share.ffn, hidden);
  add_residual(part, shape, norm_tokens * hidden);

  if (shape.recompute == Recompute::full) {
    append(part.input, std::vector<Kernel>(part.forward));
  } else if (shape.recompute == Recompute::selective) {
    append(part.input, attention.forward);
  }
  return part;
}

PartKernels embedding_kernels(const Model& model, const WorkShape& shape) {
  const double bytes =
      2.0 * shape.micro_batch * model.sequence * model.hidden * shape.element_bytes();
  return {{stream(bytes, 3)}, {}, {stream(bytes, 2)}};
}

// The loss in fp32 over the vocabulary: written, read for the maximum, for the exponentials and
// their sum, and once more by the backward, which writes the gradient. Unfused programs pass over
// the logits about twice as often.
PartKernels head_kernels(const Model& model, const WorkShape& shape) {
  const TensorShare share = largest_share(model, shape.tensor);
  const double e = shape.element_bytes();
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double passes = shape.execution.attention == Attention::unfused ? 10 : 5;
  const double norm_tokens = shape.sequence_parallel ? tokens / shape.tensor : tokens;
  PartKernels part;
  add_elementwise(part, 2 * norm_tokens * model.hidden * e);
  add_linear(part, shape, tokens, model.hidden, share.vocab);
  part.forward.push_back(stream(passes * tokens * share.vocab * 4.0, passes));
  part.input.push_back(stream(3 * tokens * share.vocab * 4.0, 3));
  return part;
}

double DeviceSpeed::product_seconds(const Kernel& kernel) const {
  if (multiprocessors == 0) return std::max(kernel.flops / flops, kernel.bytes / bytes_per_s);
  double best = 1e300;
  for (const Tile& tile : kTiles) {
    const double tiles = kernel.count * std::ceil(kernel.m / tile.m) * std::ceil(kernel.n / tile.n);
    for (const double split : {1.0, 2.0, 4.0, 8.0}) {
      const double waves = std::ceil(tiles * split / multiprocessors);
      const double work = 2 * tile.m * tile.n * (kernel.k / split + kFill);
      const double arithmetic = waves * work * multiprocessors / (flops * tile.efficiency);
      // Partial sums of a split are written and read in fp32.
      const double sums = split > 1 ? 8 * split * kernel.m * kernel.n * kernel.count : 0;
      const double exposed = kExposed * kernel.result / bytes_per_s;
      best = std::min(
          best, std::max(arithmetic + exposed, kernel.bytes / bytes_per_s) + sums / bytes_per_s);
    }
  }
  return best;
}

double DeviceSpeed::seconds(const Kernel& kernel) const {
  switch (kernel.kind) {
    case Kernel::Kind::stream:
      return kernel.bytes / bytes_per_s + start_s;
    case Kernel::Kind::attention: {
      const double slack = multiprocessors == 0 ? 1 : kernel.slack;
      return std::max(slack * kernel.flops / attention_flops, kernel.bytes / bytes_per_s) + start_s;
    }
    case Kernel::Kind::matmul:
      break;
  }
  return product_seconds(kernel) + start_s;
}

double DeviceSpeed::seconds(const std::vector<Kernel>& kernels) const {
  double device = 0, issued = 0;
  for (const Kernel& kernel : kernels) {
    device += seconds(kernel);
    issued += kernel.launches;
  }
  return issue_ahead ? std::max(device, issued * issue_s) : device + issued * issue_s;
}

// Devices without bf16 run it as fp16 where they have that (the same matrix units and sizes).
double peak_flops(const Device& device, Dtype dtype) {
  if (dtype == Dtype::fp32) return device.fp32_flops;
  if (device.bf16_flops > 0) return device.bf16_flops;
  return device.fp16_flops > 0 ? device.fp16_flops : device.fp32_flops;
}

DeviceSpeed device_speed(const Device& device, Dtype dtype, double slowdown,
                         const Execution& execution) {
  const double peak = peak_flops(device, dtype) / slowdown;
  const bool cpu = device.is_cpu();
  return {.flops = peak * device.matmul_efficiency,
          .attention_flops = peak * device.attention_efficiency,
          .bytes_per_s = device.memory_bytes_per_s * device.memory_efficiency / slowdown,
          .start_s = (cpu ? kCpuLaunch : kGpuStart) * slowdown,
          .issue_s = cpu ? 0 : execution.issue_us * 1e-6,
          .issue_ahead = execution.issue_ahead,
          .multiprocessors = device.multiprocessors};
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

double hardware_flops_per_token(const Model& model, Recompute recompute, double share) {
  const double layers = share * model.layers;
  switch (recompute) {
    case Recompute::none:
      break;
    case Recompute::selective:
      return model_flops_per_token(model) + layers * attention_flops(model);
    case Recompute::full:
      return model_flops_per_token(model) + layers * layer_forward_flops(model);
  }
  return model_flops_per_token(model);
}

}  // namespace trireme
