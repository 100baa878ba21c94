#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/device/emulated_stream.h"

namespace trireme {

// A device that is rehearsed, not there. Its memory is address space: pages come into being where a
// message is written to them, all else costs nothing, and it is counted as if it were real.
// Its kernels do nothing; the time of an op is queued on stream(), and `synchronize` waits for it.
class EmulatedDevice final : public Device {
 public:
  EmulatedDevice() = default;
  ~EmulatedDevice() override;

  EmulatedStream& stream() { return stream_; }

  Buffer allocate(size_t floats) override;
  void synchronize() override { stream_.wait(); }

  void copy_from_host(float*, const float*, size_t) override {}
  void copy_to_host(float*, const float*, size_t) override {}
  void copy(float*, const float*, size_t) override {}
  void zero(float*, size_t) override {}
  void add(float*, const float*, size_t) override {}
  std::unique_ptr<Weight> weight(const float*, int, int, bool) override;
  void linear_forward(float*, const float*, const Weight&, int) override {}
  void linear_input_gradient(float*, const float*, const Weight&, int) override {}
  void linear_weight_gradient(float*, const float*, const float*, int, int, int, bool) override {}
  void bias_gradient(float*, const float*, int, int, bool) override {}
  void add_bias(float*, const float*, int, int) override {}
  void add_residual(float*, const float*, const float*, int, int) override {}
  void layer_norm_forward(float*, float*, const float*, const float*, const float*, int, int,
                          float) override {}
  void layer_norm_backward(float*, float*, float*, const float*, const float*, const float*,
                           const float*, const float*, int, int) override {}
  void rms_norm_forward(float*, float*, const float*, const float*, int, int, float) override {}
  void rms_norm_backward(float*, float*, const float*, const float*, const float*, const float*,
                         const float*, int, int) override {}
  void gelu_forward(float*, float*, const float*, int, int) override {}
  void gelu_backward(float*, const float*, size_t) override {}
  void swiglu_forward(float*, const float*, int, int) override {}
  void swiglu_backward(float*, const float*, const float*, int, int) override {}
  void rotary(float*, const AttentionShape&, double, bool) override {}
  void attention_forward(float*, float*, const float*, const AttentionShape&) override {}
  void attention_backward(float*, const float*, const float*, const float*, const float*,
                          const AttentionShape&) override {}
  void embedding_forward(float*, const int32_t*, const float*, int, int, int, int) override {}
  void embedding_backward(float*, const int32_t*, const float*, int, int, int, int) override {}
  void add_positions(float*, const float*, int, int, int) override {}
  void positions_gradient(float*, const float*, int, int, int, bool) override {}
  void cross_entropy_maximum(float*, const float*, int, int) override {}
  void cross_entropy_sums(float*, float*, const float*, const int32_t*, int, int, int) override {}
  void cross_entropy_gradient(float*, float*, const float*, const int32_t*, int, int, int,
                              float) override {}
  double squared_norm(const float*, size_t) override { return 0; }
  void adamw(float*, float*, float*, const float*, size_t, const AdamW&) override {}

 private:
  void give_back(float* data, size_t size) override;

  EmulatedStream stream_;
  std::mutex mutex_;
  std::map<size_t, std::vector<float*>> free_;  // by size in floats
};

}  // namespace trireme
