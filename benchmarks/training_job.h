#pragma once

#include "planner/plan/plan.h"

namespace trireme::bench {

// The dimensions of a benchmark's model and batch.
struct Shape {
  const char* name;
  int layers, hidden, heads, vocab, sequence, batch, micro_batch;
};

// A GPT of that shape on real text (bytes), with tied embeddings.
Job training_job(const Shape& shape);
// The plan for exactly these degrees, layers cut evenly, on this machine.
Plan training_plan(const Job& job, int tensor, int pipeline, int data, int micro_batch);

// Model FLOPs of one step: 6 per parameter that a token is multiplied with, and 12 * layers *
// sequence * hidden per token for attention (Chowdhery et al. 2022, appendix B, which counts the
// whole square). `causal`: only the half that causal attention needs, which is what is computed
// here.
double step_flops(const Job& job, bool causal);

}  // namespace trireme::bench
