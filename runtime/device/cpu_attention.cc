#include "runtime/device/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/device/cpu_matmul.h"
#include "runtime/device/kernels.h"

namespace trireme {
namespace {

constexpr int kQueryBlock = 64;

// Scratch of one thread, grown and kept: attention runs every layer of every micro-batch.
float* scratch(int slot, size_t floats) {
  thread_local std::vector<float> memory[3];
  if (memory[slot].size() < floats) memory[slot].resize(floats);
  return memory[slot].data();
}

// One head of one sample inside the packed qkv rows.
struct HeadView {
  size_t query;  // offset of its q, k and v in qkv
  size_t key;
  size_t value;
  size_t out;         // offset in the attention output
  size_t statistics;  // offset in logsumexp
};

HeadView view_of(const AttentionShape& s, int sample, int head) {
  const size_t token = static_cast<size_t>(sample) * s.sequence;
  const size_t row = token * s.row_width();
  const int kv = head / (s.heads / s.kv_heads);
  return {row + static_cast<size_t>(head) * s.head_dim,
          row + s.query_width() + static_cast<size_t>(kv) * s.head_dim,
          row + s.query_width() + s.kv_width() + static_cast<size_t>(kv) * s.head_dim,
          token * s.query_width() + static_cast<size_t>(head) * s.head_dim,
          (static_cast<size_t>(sample) * s.heads + head) * s.sequence};
}

float scale_of(const AttentionShape& s) {
  return 1.0F / std::sqrt(static_cast<float>(s.head_dim));
}

void forward_head(float* out, float* logsumexp, const float* qkv, const AttentionShape& s,
                  const HeadView& at) {
  const int row = s.row_width();
  for (int first = 0; first < s.sequence; first += kQueryBlock) {
    const int rows = std::min(kQueryBlock, s.sequence - first);
    const int seen = first + rows;
    float* scores = scratch(0, static_cast<size_t>(rows) * seen);
    matmul(false, true, rows, seen, s.head_dim, qkv + at.query + static_cast<size_t>(first) * row,
           row, qkv + at.key, row, 0, scores, seen);
    kernels().softmax(scores, logsumexp + at.statistics + first, scale_of(s), rows, seen, first);
    matmul(false, false, rows, s.head_dim, seen, scores, seen, qkv + at.value, row, 0,
           out + at.out + static_cast<size_t>(first) * s.query_width(), s.query_width());
  }
}

// The gradients of k and v are added to, those of q written.
void backward_head(float* dqkv, const float* dout, const float* qkv, const float* out,
                   const float* logsumexp, const AttentionShape& s, const HeadView& at) {
  const int row = s.row_width();
  const int width = s.query_width();
  float delta[kQueryBlock];
  for (int first = 0; first < s.sequence; first += kQueryBlock) {
    const int rows = std::min(kQueryBlock, s.sequence - first);
    const int seen = first + rows;
    const size_t query = at.query + static_cast<size_t>(first) * row;
    const size_t output = at.out + static_cast<size_t>(first) * width;
    for (int r = 0; r < rows; ++r) {
      const size_t o = output + static_cast<size_t>(r) * width;
      delta[r] = kernels().dot(dout + o, out + o, s.head_dim);
    }
    float* p = scratch(0, static_cast<size_t>(rows) * seen);
    float* dp = scratch(1, static_cast<size_t>(rows) * seen);
    matmul(false, true, rows, seen, s.head_dim, qkv + query, row, qkv + at.key, row, 0, p, seen);
    kernels().probabilities(p, logsumexp + at.statistics + first, scale_of(s), rows, seen, first);
    matmul(true, false, seen, s.head_dim, rows, p, seen, dout + output, width, 1, dqkv + at.value,
           row);
    matmul(false, true, rows, seen, s.head_dim, dout + output, width, qkv + at.value, row, 0, dp,
           seen);
    kernels().softmax_gradient(dp, p, delta, scale_of(s), rows, seen);
    matmul(false, false, rows, s.head_dim, seen, dp, seen, qkv + at.key, row, 0, dqkv + query, row);
    matmul(true, false, seen, s.head_dim, rows, dp, seen, qkv + query, row, 1, dqkv + at.key, row);
  }
}

void zero_columns(float* matrix, int rows, int stride, int columns) {
  for (int r = 0; r < rows; ++r) {
    std::fill_n(matrix + static_cast<size_t>(r) * stride, columns, 0.0F);
  }
}

}  // namespace

void cpu_attention_forward(ThreadPool& pool, float* out, float* logsumexp, const float* qkv,
                           const AttentionShape& s) {
  pool.run(s.batch * s.heads, [&](int piece) {
    forward_head(out, logsumexp, qkv, s, view_of(s, piece / s.heads, piece % s.heads));
  });
}

void cpu_attention_backward(ThreadPool& pool, float* dqkv, const float* dout, const float* qkv,
                            const float* out, const float* logsumexp, const AttentionShape& s) {
  if (s.heads == 0) return;
  const int sharing = s.heads / s.kv_heads;
  pool.run(s.batch * s.kv_heads, [&](int piece) {
    const int sample = piece / s.kv_heads;
    const int first_head = piece % s.kv_heads * sharing;
    const HeadView shared = view_of(s, sample, first_head);
    zero_columns(dqkv + shared.key, s.sequence, s.row_width(), s.head_dim);
    zero_columns(dqkv + shared.value, s.sequence, s.row_width(), s.head_dim);
    for (int head = first_head; head < first_head + sharing; ++head) {
      backward_head(dqkv, dout, qkv, out, logsumexp, s, view_of(s, sample, head));
    }
  });
}

}  // namespace trireme
