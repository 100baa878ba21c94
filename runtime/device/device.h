#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace trireme {

class Device;

// Device memory for `size()` floats, owned. Move-only; goes back to its device's pool when it dies,
// so a training step that repeats allocates nothing. The device must outlive it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, float* data, size_t size);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  float* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<float> span() const { return {data_, size_}; }

 private:
  void release();
  Device* device_ = nullptr;
  float* data_ = nullptr;
  size_t size_ = 0;
};

// An activation that a layer and a pending weight gradient may share.
using Activation = std::shared_ptr<Buffer>;

// A matrix [out, in] of weights, row-major, as the device likes to multiply with it. A device may
// keep packed copies; they are remade after `changed()`. The memory belongs to the caller and must
// outlive the handle.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual void changed() = 0;
};

// Which query, key and value heads a rank holds. Query head h reads key-value head h / (heads /
// kv_heads).
struct AttentionShape {
  int batch = 0;
  int sequence = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int query_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  int row_width() const {
    return query_width() + 2 * kv_width();
  }  // one token's q, k and v side by side
};

struct AdamW {
  float learning_rate = 0;
  float beta1 = 0;
  float beta2 = 0;
  float epsilon = 0;
  float weight_decay = 0;
  float gradient_scale = 1;  // clipping
  int step = 1;              // counted from 1, for the bias correction
};

// The one device that a rank owns. All pointers are device memory unless said; matrices are
// row-major, `rows` are tokens. Calls are issued by one thread and run in the order of issue on the
// device's compute stream; they may return before the work is done, and `synchronize` waits for it.
// The CPU device finishes each call before it returns. An output may be the same memory as an input
// only where a call says "in place". Sizes may be zero.
//
// The result of a call depends on its arguments alone, never on the number of threads: work is cut
// into pieces by shape.
class Device {
 public:
  virtual ~Device() = default;

  // From any thread, as is giving a Buffer back: a message keeps its memory until it has left.
  virtual Buffer allocate(size_t floats) = 0;
  Activation activation(size_t floats) { return std::make_shared<Buffer>(allocate(floats)); }
  // Bytes in live Buffers now, and the most that there were at any time. What a device keeps beside
  // them (packed weights, scratch) is not in it. From any thread.
  size_t held_bytes() const { return held_; }
  size_t peak_bytes() const { return peak_; }

  virtual void synchronize() = 0;
  virtual void copy_from_host(float* to, const float* host, size_t count) = 0;
  virtual void copy_to_host(float* host, const float* from, size_t count) = 0;
  virtual void copy(float* to, const float* from, size_t count) = 0;
  virtual void zero(float* to, size_t count) = 0;
  // to += from
  virtual void add(float* to, const float* from, size_t count) = 0;

  // `reuse`: the weight is multiplied with several times between two changes, so packing it pays.
  virtual std::unique_ptr<Weight> weight(const float* data, int out, int in, bool reuse) = 0;
  // y[rows,out] = x[rows,in] * w^T
  virtual void linear_forward(float* y, const float* x, const Weight& w, int rows) = 0;
  // dx[rows,in] = dy[rows,out] * w
  virtual void linear_input_gradient(float* dx, const float* dy, const Weight& w, int rows) = 0;
  // dw[out,in] = dy^T * x, added to dw when `accumulate`
  virtual void linear_weight_gradient(float* dw, const float* dy, const float* x, int rows, int out,
                                      int in, bool accumulate) = 0;
  // db[columns] = sum over rows of dy, added to db when `accumulate`
  virtual void bias_gradient(float* db, const float* dy, int rows, int columns,
                             bool accumulate) = 0;
  // y[r,c] += bias[c], in place
  virtual void add_bias(float* y, const float* bias, int rows, int columns) = 0;
  // y[r,c] = residual[r,c] + y[r,c] + bias[c], in place; bias may be null
  virtual void add_residual(float* y, const float* residual, const float* bias, int rows,
                            int columns) = 0;

  // y = (x - mean) * rstd * gamma + beta over each row (Ba et al. 2016). statistics[rows,2] keeps
  // mean and rstd.
  virtual void layer_norm_forward(float* y, float* statistics, const float* x, const float* gamma,
                                  const float* beta, int rows, int columns, float epsilon) = 0;
  // dx = residual + gradient through the norm; dgamma and dbeta over all rows.
  virtual void layer_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                   const float* residual, const float* x, const float* statistics,
                                   const float* gamma, int rows, int columns) = 0;
  // y = x / sqrt(mean(x^2) + epsilon) * gamma (Zhang & Sennrich 2019). statistics[rows] keeps the
  // reciprocal root.
  virtual void rms_norm_forward(float* y, float* statistics, const float* x, const float* gamma,
                                int rows, int columns, float epsilon) = 0;
  virtual void rms_norm_backward(float* dx, float* dgamma, const float* dy, const float* residual,
                                 const float* x, const float* statistics, const float* gamma,
                                 int rows, int columns) = 0;

  // u += bias in place, then y = gelu(u), tanh form (Hendrycks & Gimpel 2016).
  virtual void gelu_forward(float* y, float* u, const float* bias, int rows, int columns) = 0;
  // dy *= gelu'(u), in place
  virtual void gelu_backward(float* dy, const float* u, size_t count) = 0;
  // gate_up[rows, 2*columns] holds gate then up; y = silu(gate) * up (Shazeer 2020).
  virtual void swiglu_forward(float* y, const float* gate_up, int rows, int columns) = 0;
  virtual void swiglu_backward(float* dgate_up, const float* dy, const float* gate_up, int rows,
                               int columns) = 0;

  // Rotates the q and k parts of qkv[batch*sequence, row_width] in place by position (Su et al.
  // 2021, half-split pairs as in Llama); `backward` rotates back.
  virtual void rotary(float* qkv, const AttentionShape& shape, double theta, bool backward) = 0;
  // Causal softmax attention. out[tokens, query_width]; logsumexp[batch*heads*sequence] is kept for
  // the backward pass, which recomputes the probabilities block by block (Dao et al. 2022), so
  // nothing of size sequence^2 is ever stored.
  virtual void attention_forward(float* out, float* logsumexp, const float* qkv,
                                 const AttentionShape& shape) = 0;
  virtual void attention_backward(float* dqkv, const float* dout, const float* qkv,
                                  const float* out, const float* logsumexp,
                                  const AttentionShape& shape) = 0;

  // out[t] = table[token - first] for first <= token < first+count, else 0. Tokens are host memory.
  virtual void embedding_forward(float* out, const int32_t* tokens, const float* table, int rows,
                                 int columns, int first, int count) = 0;
  // dtable[token - first] += dout[t] for the tokens in range, in row order.
  virtual void embedding_backward(float* dtable, const int32_t* tokens, const float* dout, int rows,
                                  int columns, int first, int count) = 0;
  // x[b*sequence+s] += positions[s], in place; and its gradient, summed over the batch in order.
  virtual void add_positions(float* x, const float* positions, int batch, int sequence,
                             int columns) = 0;
  virtual void positions_gradient(float* dpositions, const float* dx, int batch, int sequence,
                                  int columns, bool accumulate) = 0;

  // Cross-entropy over logits[rows, count] of the vocabulary part [first, first+count) (Shoeybi et
  // al. 2019, section 3): the caller reduces `maximum` and then `sums` over the tensor group
  // between the calls.
  virtual void cross_entropy_maximum(float* maximum, const float* logits, int rows, int count) = 0;
  // logits = exp(logits - maximum) in place; sums[0..rows) = row sums; sums[rows..2*rows) = logit -
  // maximum of the target where it is in range, else 0. Targets are host memory.
  virtual void cross_entropy_sums(float* sums, float* logits, const float* maximum,
                                  const int32_t* targets, int rows, int count, int first) = 0;
  // loss[rows] = log(sum) - target logit; logits become d(scale * sum of losses)/d logits, in
  // place.
  virtual void cross_entropy_gradient(float* loss, float* logits, const float* sums,
                                      const int32_t* targets, int rows, int count, int first,
                                      float scale) = 0;

  // Sum of squares, accumulated in double.
  virtual double squared_norm(const float* x, size_t count) = 0;
  // One pass of AdamW with decoupled weight decay (Loshchilov & Hutter 2019).
  virtual void adamw(float* weights, float* momentum, float* variance, const float* gradient,
                     size_t count, const AdamW& settings) = 0;

 private:
  friend class Buffer;
  virtual void give_back(float* data, size_t size) = 0;
  void count_in(size_t bytes) {
    const size_t now = held_ += bytes;
    size_t peak = peak_;
    while (peak < now && !peak_.compare_exchange_weak(peak, now)) {
    }
  }

  std::atomic<size_t> held_{0};
  std::atomic<size_t> peak_{0};
};

inline Buffer::Buffer(Device* device, float* data, size_t size)
    : device_(device), data_(data), size_(size) {
  device_->count_in(size_ * sizeof(float));
}

inline Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_), data_(other.data_), size_(other.size_) {
  other.data_ = nullptr;
  other.size_ = 0;
}
inline Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    device_ = other.device_;
    data_ = other.data_;
    size_ = other.size_;
    other.data_ = nullptr;
    other.size_ = 0;
  }
  return *this;
}
inline Buffer::~Buffer() {
  release();
}
inline void Buffer::release() {
  if (data_ == nullptr) return;
  device_->held_ -= size_ * sizeof(float);
  device_->give_back(data_, size_);
  data_ = nullptr;
}

// The CPU device: oneDNN for matrix products, vector loops for the rest, `threads` threads.
std::unique_ptr<Device> make_cpu_device(int threads);

}  // namespace trireme
