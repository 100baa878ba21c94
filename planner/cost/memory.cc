#include "planner/cost/memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace trireme {
namespace {

constexpr double kGpuReserve = 1.5e9;  // CUDA context, NCCL buffers, cuBLAS workspace
constexpr double kCpuReserve = 64e6;

double layer_share(const Model& model, const TensorShare& share) {
  const double h = model.hidden, q = share.query, kv = share.kv, f = share.ffn;
  if (model.family == Family::llama) return h * (q + 2 * kv) + q * h + 3 * h * f + 2 * h;
  const double attention = (h + 1) * (q + 2 * kv) + q * h + h;
  return attention + (h + 1) * f + f * h + h + 4 * h;
}

}  // namespace

std::vector<double> stage_parameters(const Model& model, const Layout& layout,
                                     const std::vector<Stage>& stages) {
  const TensorShare share = largest_share(model, layout.tensor);
  const double layer = layer_share(model, share);
  const double table = static_cast<double>(share.vocab) * model.hidden;
  const bool shared = model.tied_embeddings && stages.size() == 1;
  const double positions =
      model.family == Family::gpt2 ? static_cast<double>(model.positions) * model.hidden : 0;
  std::vector<double> parameters;
  parameters.reserve(stages.size());
  for (const Stage& stage : stages) {
    double count = stage.layers * layer;
    if (stage.embedding) count += table + positions;
    if (stage.head) {
      count += static_cast<double>(final_norm_parameters(model)) + (shared ? 0 : table);
    }
    parameters.push_back(count);
  }
  return parameters;
}

int gradient_buffers(Reduction reduction, int micro_batches) {
  if (reduction == Reduction::fast || micro_batches <= 1) return 1;
  return static_cast<int>(std::bit_width(static_cast<unsigned>(micro_batches))) - 1 + 2;
}

namespace {

// Of one layer and micro-batch, nothing recomputed but what `shape` says of attention.
double layer_activation_bytes(const Model& model, const WorkShape& shape, bool cpu) {
  const TensorShare share = largest_share(model, shape.tensor);
  const bool llama = model.family == Family::llama;
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double h = model.hidden, e = shape.element_bytes();
  // Bytes per token, replicated and divided over tensor ranks.
  double whole = (cpu ? 9 : 4) * h * e;
  double split = (2.0 * share.query + 2.0 * share.kv + (llama ? 3.0 : 2.0) * share.ffn) * e;
  if (!cpu && shape.execution.dropout) whole += 2 * h;
  if (!cpu && shape.execution.attention == Attention::unfused &&
      shape.recompute != Recompute::selective) {
    const double heads = static_cast<double>(share.query) / model.head_dim;
    split += heads * model.sequence * (shape.execution.dropout ? 2 * e + 1 : e);
  }
  if (shape.sequence_parallel) whole /= shape.tensor;
  return tokens * (whole + split);
}

}  // namespace

double stage_activation_bytes(const Model& model, const WorkShape& shape, bool cpu,
                              const Stage& stage) {
  if (!shape.trains) return 0;
  const TensorShare share = largest_share(model, shape.tensor);
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double input =
      tokens * model.hidden * shape.element_bytes() / (shape.sequence_parallel ? shape.tensor : 1);
  const double layer =
      shape.recompute == Recompute::full ? input : layer_activation_bytes(model, shape, cpu);
  const double head = (cpu ? 1 : 2) * input + tokens * share.vocab * 4.0;
  return stage.layers * layer + (stage.head ? head : 0);
}

double passing_bytes(const Model& model, const WorkShape& shape, bool cpu, bool head) {
  const bool one_by_one = shape.recompute == Recompute::full || !shape.trains;
  const double layer = one_by_one ? layer_activation_bytes(model, shape, cpu) : 0;
  if (!head) return layer;
  const double tokens = static_cast<double>(shape.micro_batch) * model.sequence;
  const double logits = (shape.dtype == Dtype::fp32 ? 0 : shape.element_bytes()) +
                        (shape.trains ? 0 : 4);  // in fp32 they are kept for the backward
  return layer + tokens * largest_share(model, shape.tensor).vocab * logits;
}

int optimizer_shards(const Execution& execution, const Layout& layout) {
  if (layout.optimizer_sharding == 0) return 1;
  const int ranks = execution.sharding_ranks;
  return ranks == 0 ? layout.data : std::min(ranks, layout.data);
}

std::vector<MemoryParts> resident_memory(const Job& job, const Execution& execution,
                                         const Layout& layout, const std::vector<Stage>& stages,
                                         bool cpu) {
  const bool fp32 = job.training.dtype == Dtype::fp32;
  const double gradient = gradient_bytes(job.training.dtype, execution);
  const std::vector<double> parameters = stage_parameters(job.model, layout, stages);
  const int buffers = gradient_buffers(job.training.reduction_on(cpu), layout.micro_batches);
  std::vector<MemoryParts> memory(static_cast<size_t>(layout.pipeline));
  for (size_t s = 0; s < stages.size(); ++s) {
    MemoryParts& rank = memory[static_cast<size_t>(stages[s].pipeline_rank)];
    rank.parameters += parameters[s] * (fp32 ? 4 : 2);
    rank.reserve = cpu ? kCpuReserve : kGpuReserve;
    if (!layout.trains()) continue;
    rank.gradients += parameters[s] * gradient * buffers;
    rank.optimizer += parameters[s] * (fp32 ? 8 : 12) / optimizer_shards(execution, layout);
  }
  return memory;
}

std::vector<double> peak_activation_bytes(const Schedule& schedule,
                                          const std::vector<double>& bytes_of_stage) {
  std::vector<std::array<int64_t, 4>> change;  // by stage and kind: F, B, I, W
  change.reserve(bytes_of_stage.size());
  for (const double of_stage : bytes_of_stage) {
    const int64_t bytes = std::llround(of_stage);
    change.push_back({bytes, -bytes, 0, -bytes});
  }
  std::vector<double> peaks;
  peaks.reserve(schedule.ranks.size());
  for (const std::vector<Op>& program : schedule.ranks) {
    int64_t held = 0, peak = 0;
    for (const Op& op : program) {
      held += change[static_cast<size_t>(op.stage)][static_cast<size_t>(op.kind)];
      peak = std::max(peak, held);
    }
    peaks.push_back(static_cast<double>(peak));
  }
  return peaks;
}

}  // namespace trireme
