#pragma once

#include "runtime/device/device.h"
#include "runtime/device/thread_pool.h"

namespace trireme {

// Causal attention on the CPU, in blocks of queries against all the keys they may see; see Device
// for shapes. One piece of work is one sample and one key-value head with all the query heads that
// share it, so that no two pieces write the same memory.
void cpu_attention_forward(ThreadPool& pool, float* out, float* logsumexp, const float* qkv,
                           const AttentionShape& shape);
void cpu_attention_backward(ThreadPool& pool, float* dqkv, const float* dout, const float* qkv,
                            const float* out, const float* logsumexp, const AttentionShape& shape);

}  // namespace trireme
