#pragma once

#include <cstddef>
#include <cstdint>

namespace trireme {

// The element-wise and row-wise loops of the CPU device, compiled once for each instruction set and
// chosen when the program starts. Semantics as the Device calls of the same names, on contiguous
// rows and the calling thread. Every instruction set sums in the same lanes and order.
struct Kernels {
  const char* name;
  void (*add)(float* to, const float* from, size_t count);
  void (*add_bias)(float* y, const float* bias, int rows, int columns);
  void (*add_residual)(float* y, const float* residual, const float* bias, int rows, int columns);
  // Columns [begin, end) of a [rows, columns] matrix.
  void (*bias_gradient)(float* db, const float* dy, int rows, int columns, int begin, int end,
                        bool accumulate);
  void (*layer_norm_forward)(float* y, float* statistics, const float* x, const float* gamma,
                             const float* beta, int rows, int columns, float epsilon);
  void (*layer_norm_input_gradient)(float* dx, const float* dy, const float* residual,
                                    const float* x, const float* statistics, const float* gamma,
                                    int rows, int columns);
  void (*layer_norm_weight_gradient)(float* dgamma, float* dbeta, const float* dy, const float* x,
                                     const float* statistics, int rows, int columns, int begin,
                                     int end);
  void (*rms_norm_forward)(float* y, float* statistics, const float* x, const float* gamma,
                           int rows, int columns, float epsilon);
  void (*rms_norm_input_gradient)(float* dx, const float* dy, const float* residual, const float* x,
                                  const float* statistics, const float* gamma, int rows,
                                  int columns);
  void (*rms_norm_weight_gradient)(float* dgamma, const float* dy, const float* x,
                                   const float* statistics, int rows, int columns, int begin,
                                   int end);
  void (*gelu_forward)(float* y, float* u, const float* bias, int rows, int columns);
  void (*gelu_backward)(float* dy, const float* u, size_t count);
  void (*swiglu_forward)(float* y, const float* gate_up, int rows, int columns);
  void (*swiglu_backward)(float* dgate_up, const float* dy, const float* gate_up, int rows,
                          int columns);
  // Pairs (x[i], x[i + half]) of one head turned by the angle whose cosine and sine are given.
  void (*rotate)(float* head, const float* cosine, const float* sine, int half);
  // Causal softmax of scores[rows, columns] where row r may see columns 0 .. first+r; scores are
  // scaled first. Columns beyond become 0. logsumexp[r] is written.
  void (*softmax)(float* scores, float* logsumexp, float scale, int rows, int columns, int first);
  // scores -> probabilities by a known logsumexp.
  void (*probabilities)(float* scores, const float* logsumexp, float scale, int rows, int columns,
                        int first);
  // dp = p * (dp - delta[r]) * scale, in place.
  void (*softmax_gradient)(float* dp, const float* p, const float* delta, float scale, int rows,
                           int columns);
  float (*dot)(const float* a, const float* b, int count);
  void (*row_maximum)(float* maximum, const float* x, int rows, int columns);
  // x = exp(x - maximum), in place; sums of the rows.
  void (*exponentials)(float* sums, float* x, const float* maximum, int rows, int columns);
  void (*scale_rows)(float* x, const float* factor, int rows, int columns);
  double (*squared_norm)(const float* x, size_t count);
  // m, v and w in one pass; see Device::adamw. inverse1 and inverse2 are the bias corrections
  // 1/(1-beta^step).
  void (*adamw)(float* w, float* m, float* v, const float* g, size_t count, float learning_rate,
                float beta1, float beta2, float epsilon, float decay, float gradient_scale,
                float inverse1, float inverse2);
};

// The fastest set that this processor runs.
const Kernels& kernels();

}  // namespace trireme
