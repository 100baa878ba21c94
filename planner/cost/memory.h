#pragma once

#include <vector>

#include "planner/cost/kernels.h"
#include "planner/plan/plan.h"

namespace trireme {

// Bytes on the fullest rank of each pipeline rank's tensor and data peers. All counts follow from
// the layout; nothing is measured. Per parameter (fp32 / bf16 with fp32 master weights, as in
// Megatron-LM):
//   weight     4 / 2
//   gradient   4 / 4 (2 with gradient_dtype bf16), times the buffers in flight (gradient_buffers)
//   optimizer  8 / 12: AdamW's two moments, and the master copy; over optimizer_shards
// An evaluation has the weights alone.
struct MemoryParts {
  double parameters = 0;
  double gradients = 0;
  double optimizer = 0;
  double activations = 0;
  double reserve = 0;  // context, communication buffers, workspace

  double total() const { return parameters + gradients + optimizer + activations + reserve; }
};

// By global stage: parameters on the fullest tensor rank. The head has its own copy of a tied
// embedding unless it lies on the same stage.
std::vector<double> stage_parameters(const Model& model, const Layout& layout,
                                     const std::vector<Stage>& stages);

// The ordered reduction adds gradients of micro-batches up a binary tree, whose open partial sums
// and the sum being formed are floor(log2(m)) + 2 buffers; the fast one, and a single micro-batch,
// need one.
int gradient_buffers(Reduction reduction, int micro_batches);

// What a stage keeps of one micro-batch from its F until its B; of an evaluation nothing.
//
// On GPUs, bytes at 16 bit (Korthikanti et al. 2022, Reducing Activation Recomputation in Large
// Transformer Models, equation 2, written for any head and feed-forward width): for each layer and
// token 10 h + (4 q + 4 kv + 4 ffn, or 6 ffn with SwiGLU) / t; all of it / t with sequence
// parallelism (equation 4); 2 h with full recomputation. The term 5 a s / t for stored attention
// scores counts only with unfused attention (fused kernels keep none, Dao et al. 2022) and without
// selective recomputation; without dropout its three masks are not there: 2 h and one byte of the
// five. The head keeps what its norm and its product take, and fp32 logits: 4 h, / t with sequence
// parallelism, and 4 v / t (section 4.3).
//
// On CPUs, what trireme's fp32 runtime keeps, in numbers: for each layer and token
// 9 h + (2 q + 2 kv + 2 ffn, or 3 ffn) / t, which is 13 h + 2 ffn for a GPT on one rank. The head
// keeps its normed input and logits.
double stage_activation_bytes(const Model& model, const WorkShape& shape, bool cpu,
                              const Stage& stage);

// What a pipeline rank holds besides, while an op runs: one layer's activations where layers are
// recomputed or nothing comes back, and with the head the logits before the loss makes fp32 of
// them, in an evaluation these, too.
double passing_bytes(const Model& model, const WorkShape& shape, bool cpu, bool head);

// Replicas that share one copy of the optimizer's state: 1 without sharding.
int optimizer_shards(const Execution& execution, const Layout& layout);

// By pipeline rank, except activations.
std::vector<MemoryParts> resident_memory(const Job& job, const Execution& execution,
                                         const Layout& layout, const std::vector<Stage>& stages,
                                         bool cpu);

// By pipeline rank: the most bytes that its program holds at once, given those of an activation of
// each global stage. Whole bytes, which add up several times as fast as fractions.
std::vector<double> peak_activation_bytes(const Schedule& schedule,
                                          const std::vector<double>& bytes_of_stage);

}  // namespace trireme
