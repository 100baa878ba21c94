#pragma once

#include <memory>

#include "runtime/device/device.h"
#include "runtime/device/thread_pool.h"

namespace trireme {

// Row-major matrix product through oneDNN on the calling thread: c = op(a) * op(b) + beta * c,
// where op(a) is [m,k] and op(b) is [k,n]; `lda` and so on are the row strides of the matrices as
// they are stored.
void matmul(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a, int lda,
            const float* b, int ldb, float beta, float* c, int ldc);

// Matrix products with weights, cut into blocks by shape and spread over a pool. A weight that is
// reused is kept in oneDNN's own packed form, one for each direction, remade on first use after it
// changed.
std::unique_ptr<Weight> make_cpu_weight(const float* data, int out, int in, bool reuse);
void cpu_linear_forward(ThreadPool& pool, float* y, const float* x, const Weight& w, int rows);
void cpu_linear_input_gradient(ThreadPool& pool, float* dx, const float* dy, const Weight& w,
                               int rows);
void cpu_linear_weight_gradient(ThreadPool& pool, float* dw, const float* dy, const float* x,
                                int rows, int out, int in, bool accumulate);

}  // namespace trireme
