#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "planner/plan/layout.h"
#include "runtime/device/cpu_attention.h"
#include "runtime/device/cpu_matmul.h"
#include "runtime/device/device.h"
#include "runtime/device/kernels.h"
#include "runtime/device/thread_pool.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr size_t kAlignment = 64;
constexpr int kRowsPerPiece = 64;
constexpr size_t kFloatsPerPiece = 1 << 16;
constexpr int kColumnsPerPiece = 128;

size_t offset(int row, int columns) {
  return static_cast<size_t>(row) * columns;
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads) : pool_(threads) {}
  ~CpuDevice() override {
    for (auto& [size, free] : free_) {
      for (float* memory : free) std::free(memory);
    }
  }

  // Memory that was given back is handed out again by exact size: every step asks for the same
  // sizes.
  Buffer allocate(size_t floats) override {
    const std::lock_guard lock(mutex_);
    auto& free = free_[floats];
    if (!free.empty()) {
      float* memory = free.back();
      free.pop_back();
      return {this, memory, floats};
    }
    const size_t bytes =
        (std::max<size_t>(floats, 1) * sizeof(float) + kAlignment - 1) / kAlignment;
    auto* memory = static_cast<float*>(std::aligned_alloc(kAlignment, bytes * kAlignment));
    if (memory == nullptr) throw Error(ErrorKind::failed, "out of memory");
    return {this, memory, floats};
  }
  void give_back(float* data, size_t size) override {
    const std::lock_guard lock(mutex_);
    free_[size].push_back(data);
  }

  void synchronize() override {}
  void copy_from_host(float* to, const float* host, size_t count) override {
    copy(to, host, count);
  }
  void copy_to_host(float* host, const float* from, size_t count) override {
    copy(host, from, count);
  }
  void copy(float* to, const float* from, size_t count) override {
    if (count > 0) std::memcpy(to, from, count * sizeof(float));
  }
  void zero(float* to, size_t count) override { std::fill_n(to, count, 0.0F); }
  void add(float* to, const float* from, size_t count) override {
    over_floats(count, [&](size_t first, size_t n) { k_.add(to + first, from + first, n); });
  }

  std::unique_ptr<Weight> weight(const float* data, int out, int in, bool reuse) override {
    return make_cpu_weight(data, out, in, reuse);
  }
  void linear_forward(float* y, const float* x, const Weight& w, int rows) override {
    cpu_linear_forward(pool_, y, x, w, rows);
  }
  void linear_input_gradient(float* dx, const float* dy, const Weight& w, int rows) override {
    cpu_linear_input_gradient(pool_, dx, dy, w, rows);
  }
  void linear_weight_gradient(float* dw, const float* dy, const float* x, int rows, int out, int in,
                              bool accumulate) override {
    cpu_linear_weight_gradient(pool_, dw, dy, x, rows, out, in, accumulate);
  }
  void bias_gradient(float* db, const float* dy, int rows, int columns, bool accumulate) override {
    over_columns(columns, [&](int begin, int end) {
      k_.bias_gradient(db, dy, rows, columns, begin, end, accumulate);
    });
  }
  void add_bias(float* y, const float* bias, int rows, int columns) override {
    over_rows(rows,
              [&](int first, int n) { k_.add_bias(y + offset(first, columns), bias, n, columns); });
  }
  void add_residual(float* y, const float* residual, const float* bias, int rows,
                    int columns) override {
    over_rows(rows, [&](int first, int n) {
      const size_t at = offset(first, columns);
      k_.add_residual(y + at, residual + at, bias, n, columns);
    });
  }

  void layer_norm_forward(float* y, float* statistics, const float* x, const float* gamma,
                          const float* beta, int rows, int columns, float epsilon) override {
    over_rows(rows, [&](int first, int n) {
      const size_t at = offset(first, columns);
      k_.layer_norm_forward(y + at, statistics + offset(first, 2), x + at, gamma, beta, n, columns,
                            epsilon);
    });
  }
  void layer_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                           const float* residual, const float* x, const float* statistics,
                           const float* gamma, int rows, int columns) override {
    over_rows(rows, [&](int first, int n) {
      const size_t at = offset(first, columns);
      k_.layer_norm_input_gradient(dx + at, dy + at, residual + at, x + at,
                                   statistics + offset(first, 2), gamma, n, columns);
    });
    over_columns(columns, [&](int begin, int end) {
      k_.layer_norm_weight_gradient(dgamma, dbeta, dy, x, statistics, rows, columns, begin, end);
    });
  }
  void rms_norm_forward(float* y, float* statistics, const float* x, const float* gamma, int rows,
                        int columns, float epsilon) override {
    over_rows(rows, [&](int first, int n) {
      const size_t at = offset(first, columns);
      k_.rms_norm_forward(y + at, statistics + first, x + at, gamma, n, columns, epsilon);
    });
  }
  void rms_norm_backward(float* dx, float* dgamma, const float* dy, const float* residual,
                         const float* x, const float* statistics, const float* gamma, int rows,
                         int columns) override {
    over_rows(rows, [&](int first, int n) {
      const size_t at = offset(first, columns);
      k_.rms_norm_input_gradient(dx + at, dy + at, residual + at, x + at, statistics + first, gamma,
                                 n, columns);
    });
    over_columns(columns, [&](int begin, int end) {
      k_.rms_norm_weight_gradient(dgamma, dy, x, statistics, rows, columns, begin, end);
    });
  }

  void gelu_forward(float* y, float* u, const float* bias, int rows, int columns) override {
    over_rows(rows, [&](int first, int n) {
      const size_t at = offset(first, columns);
      k_.gelu_forward(y + at, u + at, bias, n, columns);
    });
  }
  void gelu_backward(float* dy, const float* u, size_t count) override {
    over_floats(count, [&](size_t first, size_t n) { k_.gelu_backward(dy + first, u + first, n); });
  }
  void swiglu_forward(float* y, const float* gate_up, int rows, int columns) override {
    over_rows(rows, [&](int first, int n) {
      k_.swiglu_forward(y + offset(first, columns), gate_up + offset(first, 2 * columns), n,
                        columns);
    });
  }
  void swiglu_backward(float* dgate_up, const float* dy, const float* gate_up, int rows,
                       int columns) override {
    over_rows(rows, [&](int first, int n) {
      const size_t wide = offset(first, 2 * columns);
      k_.swiglu_backward(dgate_up + wide, dy + offset(first, columns), gate_up + wide, n, columns);
    });
  }

  void rotary(float* qkv, const AttentionShape& shape, double theta, bool backward) override {
    prepare_angles(shape, theta);
    const int half = shape.head_dim / 2;
    const float* sine = backward ? negative_sine_.data() : sine_.data();
    over_rows(shape.batch * shape.sequence, [&](int first, int n) {
      for (int t = first; t < first + n; ++t) {
        const size_t angle = offset(t % shape.sequence, half);
        for (int head = 0; head < shape.heads + shape.kv_heads; ++head) {
          k_.rotate(qkv + offset(t, shape.row_width()) + offset(head, shape.head_dim),
                    cosine_.data() + angle, sine + angle, half);
        }
      }
    });
  }
  void attention_forward(float* out, float* logsumexp, const float* qkv,
                         const AttentionShape& shape) override {
    cpu_attention_forward(pool_, out, logsumexp, qkv, shape);
  }
  void attention_backward(float* dqkv, const float* dout, const float* qkv, const float* out,
                          const float* logsumexp, const AttentionShape& shape) override {
    cpu_attention_backward(pool_, dqkv, dout, qkv, out, logsumexp, shape);
  }

  void embedding_forward(float* out, const int32_t* tokens, const float* table, int rows,
                         int columns, int first, int count) override {
    for (int t = 0; t < rows; ++t) {
      const int row = tokens[t] - first;
      if (row >= 0 && row < count) {
        copy(out + offset(t, columns), table + offset(row, columns), columns);
      } else {
        zero(out + offset(t, columns), columns);
      }
    }
  }
  void embedding_backward(float* dtable, const int32_t* tokens, const float* dout, int rows,
                          int columns, int first, int count) override {
    for (int t = 0; t < rows; ++t) {
      const int row = tokens[t] - first;
      if (row >= 0 && row < count) {
        k_.add(dtable + offset(row, columns), dout + offset(t, columns), columns);
      }
    }
  }
  void add_positions(float* x, const float* positions, int batch, int sequence,
                     int columns) override {
    for (int b = 0; b < batch; ++b) {
      k_.add(x + offset(b, sequence) * columns, positions, offset(sequence, columns));
    }
  }
  void positions_gradient(float* dpositions, const float* dx, int batch, int sequence, int columns,
                          bool accumulate) override {
    const size_t sample = offset(sequence, columns);
    if (!accumulate) copy(dpositions, dx, sample);
    for (int b = accumulate ? 0 : 1; b < batch; ++b) k_.add(dpositions, dx + b * sample, sample);
  }

  void cross_entropy_maximum(float* maximum, const float* logits, int rows, int count) override {
    over_rows(rows, [&](int first, int n) {
      k_.row_maximum(maximum + first, logits + offset(first, count), n, count);
    });
  }
  void cross_entropy_sums(float* sums, float* logits, const float* maximum, const int32_t* targets,
                          int rows, int count, int first) override {
    over_rows(rows, [&](int begin, int n) {
      for (int t = begin; t < begin + n; ++t) {
        const int target = targets[t] - first;
        const bool here = target >= 0 && target < count;
        sums[rows + t] = here ? logits[offset(t, count) + target] - maximum[t] : 0.0F;
      }
      k_.exponentials(sums + begin, logits + offset(begin, count), maximum + begin, n, count);
    });
  }
  void cross_entropy_gradient(float* loss, float* logits, const float* sums, const int32_t* targets,
                              int rows, int count, int first, float scale) override {
    over_rows(rows, [&](int begin, int n) {
      for (int t = begin; t < begin + n; ++t) {
        loss[t] = std::log(sums[t]) - sums[rows + t];
        const float factor = scale / sums[t];
        k_.scale_rows(logits + offset(t, count), &factor, 1, count);
        const int target = targets[t] - first;
        if (target >= 0 && target < count) logits[offset(t, count) + target] -= scale;
      }
    });
  }

  double squared_norm(const float* x, size_t count) override {
    const int pieces = static_cast<int>((count + kFloatsPerPiece - 1) / kFloatsPerPiece);
    std::vector<double> sums(pieces);
    pool_.run(pieces, [&](int piece) {
      const size_t first = static_cast<size_t>(piece) * kFloatsPerPiece;
      sums[piece] = k_.squared_norm(x + first, std::min(kFloatsPerPiece, count - first));
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  }
  void adamw(float* weights, float* momentum, float* variance, const float* gradient, size_t count,
             const AdamW& s) override {
    const auto inverse1 =
        static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(s.beta1), s.step)));
    const auto inverse2 =
        static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(s.beta2), s.step)));
    over_floats(count, [&](size_t first, size_t n) {
      k_.adamw(weights + first, momentum + first, variance + first, gradient + first, n,
               s.learning_rate, s.beta1, s.beta2, s.epsilon, s.weight_decay, s.gradient_scale,
               inverse1, inverse2);
    });
  }

 private:
  template <class Body>
  void over_rows(int rows, const Body& body) {
    pool_.run((rows + kRowsPerPiece - 1) / kRowsPerPiece, [&](int piece) {
      const int first = piece * kRowsPerPiece;
      body(first, std::min(kRowsPerPiece, rows - first));
    });
  }
  template <class Body>
  void over_floats(size_t count, const Body& body) {
    pool_.run(static_cast<int>((count + kFloatsPerPiece - 1) / kFloatsPerPiece), [&](int piece) {
      const size_t first = static_cast<size_t>(piece) * kFloatsPerPiece;
      body(first, std::min(kFloatsPerPiece, count - first));
    });
  }
  template <class Body>
  void over_columns(int columns, const Body& body) {
    pool_.run((columns + kColumnsPerPiece - 1) / kColumnsPerPiece, [&](int piece) {
      const int begin = piece * kColumnsPerPiece;
      body(begin, std::min(begin + kColumnsPerPiece, columns));
    });
  }

  // Angles of position s and pair i: s * theta^(-2i/head_dim). They depend on the model alone, so
  // once is enough.
  void prepare_angles(const AttentionShape& shape, double theta) {
    const size_t half = shape.head_dim / 2;
    if (cosine_.size() == half * shape.sequence) return;
    cosine_.resize(half * shape.sequence);
    sine_.resize(cosine_.size());
    negative_sine_.resize(cosine_.size());
    for (int s = 0; s < shape.sequence; ++s) {
      for (size_t i = 0; i < half; ++i) {
        const double angle = s * std::pow(theta, -2.0 * static_cast<double>(i) / shape.head_dim);
        const size_t at = static_cast<size_t>(s) * half + i;
        cosine_[at] = static_cast<float>(std::cos(angle));
        sine_[at] = static_cast<float>(std::sin(angle));
        negative_sine_[at] = -sine_[at];
      }
    }
  }

  ThreadPool pool_;
  const Kernels& k_ = kernels();
  std::mutex mutex_;
  std::map<size_t, std::vector<float*>> free_;
  std::vector<float> cosine_;
  std::vector<float> sine_;
  std::vector<float> negative_sine_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(int threads) {
  TRIREME_CHECK(threads >= 1);
  return std::make_unique<CpuDevice>(threads);
}

}  // namespace trireme
