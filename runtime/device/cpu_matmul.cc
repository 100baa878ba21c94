#include "runtime/device/cpu_matmul.h"

#include <omp.h>
#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <tuple>
#include <vector>

#include "planner/plan/layout.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

using Tag = dnnl::memory::format_tag;
using Desc = dnnl::memory::desc;
constexpr auto kF32 = dnnl::memory::data_type::f32;

// Rows of one block of a product. Blocks are the unit of parallel work, and their shape never
// depends on the number of threads: oneDNN may sum in another order for another shape.
constexpr int kRowBlock = 128;

int blocks_of(int rows) {
  return std::max(1, (rows + kRowBlock - 1) / kRowBlock);
}

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream() {
  thread_local dnnl::stream here(engine());
  return here;
}

// oneDNN would start OpenMP threads of its own; the pool is the only source of threads.
void use_one_thread() {
  thread_local const bool set = [] {
    omp_set_num_threads(1);
    return true;
  }();
  static_cast<void>(set);
}

// x[m,k] * packed[k,n]. One primitive for each shape and thread: oneDNN's scratch memory is per
// thread.
struct Product {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
};

const Product& product_for(int m, int n, int k) {
  thread_local std::map<std::tuple<int, int, int>, Product> products;
  const auto key = std::make_tuple(m, n, k);
  auto found = products.find(key);
  if (found == products.end()) {
    const dnnl::matmul::desc operation(Desc({m, k}, kF32, Tag::ab), Desc({k, n}, kF32, Tag::any),
                                       Desc({m, n}, kF32, Tag::ab));
    const dnnl::matmul::primitive_desc description(operation, engine());
    found = products.emplace(key, Product{description, dnnl::matmul(description)}).first;
  }
  return found->second;
}

// One packed form of a weight: `k` by `n` as the right-hand side of a product.
class Packed {
 public:
  // plain: how the [k,n] matrix lies in memory, ab (rows) or ba (columns).
  Packed(const float* data, int k, int n, Tag plain) : data_(data), k_(k), n_(n), plain_(plain) {}

  void changed() { stale_ = true; }

  // Blocks of another height may want another packing; then the product for `m` packs for itself.
  const dnnl::memory& for_rows(int m) {
    const auto wanted = product_for(m, n_, k_).description.weights_desc();
    auto form = std::find_if(forms_.begin(), forms_.end(),
                             [&](const Form& f) { return f.memory.get_desc() == wanted; });
    if (form == forms_.end()) {
      forms_.push_back({dnnl::memory(wanted, engine()), 0});
      form = forms_.end() - 1;
    }
    if (stale_) {
      ++version_;
      stale_ = false;
    }
    if (form->version != version_) {
      dnnl::memory from(Desc({k_, n_}, kF32, plain_), engine(), const_cast<float*>(data_));
      dnnl::reorder(from, form->memory).execute(stream(), from, form->memory);
      form->version = version_;
    }
    return form->memory;
  }

 private:
  struct Form {
    dnnl::memory memory;
    int version;
  };
  const float* data_;
  int k_;
  int n_;
  Tag plain_;
  bool stale_ = true;
  int version_ = 0;
  std::vector<Form> forms_;
};

struct CpuWeight final : Weight {
  CpuWeight(const float* values, int out_size, int in_size, bool packs)
      : data(values),
        out(out_size),
        in(in_size),
        reuse(packs),
        forward(values, in_size, out_size, Tag::ba),
        backward(values, out_size, in_size, Tag::ab) {}
  void changed() override {
    forward.changed();
    backward.changed();
  }

  const float* data;
  int out;
  int in;
  bool reuse;
  mutable Packed forward;
  mutable Packed backward;
};

// y[rows,n] = x[rows,k] * packed, block by block.
void multiply_packed(ThreadPool& pool, float* y, const float* x, Packed& packed, int rows, int n,
                     int k) {
  const int blocks = blocks_of(rows);
  use_one_thread();
  // Packing happens here, before the threads, which only read. Blocks come in at most two heights.
  for (const int block : {0, blocks - 1}) packed.for_rows(split_evenly(rows, blocks, block).size());
  pool.run(blocks, [&](int block) {
    use_one_thread();
    const Range range = split_evenly(rows, blocks, block);
    const int m = range.size();
    dnnl::memory source(Desc({m, k}, kF32, Tag::ab), engine(),
                        const_cast<float*>(x) + static_cast<size_t>(range.begin) * k);
    dnnl::memory destination(Desc({m, n}, kF32, Tag::ab), engine(),
                             y + static_cast<size_t>(range.begin) * n);
    product_for(m, n, k).primitive.execute(stream(), {{DNNL_ARG_SRC, source},
                                                      {DNNL_ARG_WEIGHTS, packed.for_rows(m)},
                                                      {DNNL_ARG_DST, destination}});
  });
}

}  // namespace

void matmul(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a, int lda,
            const float* b, int ldb, float beta, float* c, int ldc) {
  use_one_thread();
  const auto status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0F, a,
                                 lda, b, ldb, beta, c, ldc);
  TRIREME_CHECK(status == dnnl_success);
}

std::unique_ptr<Weight> make_cpu_weight(const float* data, int out, int in, bool reuse) {
  return std::make_unique<CpuWeight>(data, out, in, reuse);
}

void cpu_linear_forward(ThreadPool& pool, float* y, const float* x, const Weight& w, int rows) {
  const auto& weight = static_cast<const CpuWeight&>(w);
  if (rows == 0 || weight.out == 0) return;
  if (weight.in == 0) {
    std::fill_n(y, static_cast<size_t>(rows) * weight.out, 0.0F);
    return;
  }
  if (weight.reuse) {
    multiply_packed(pool, y, x, weight.forward, rows, weight.out, weight.in);
    return;
  }
  const int blocks = blocks_of(rows);
  pool.run(blocks, [&](int block) {
    const Range range = split_evenly(rows, blocks, block);
    matmul(false, true, range.size(), weight.out, weight.in,
           x + static_cast<size_t>(range.begin) * weight.in, weight.in, weight.data, weight.in, 0,
           y + static_cast<size_t>(range.begin) * weight.out, weight.out);
  });
}

void cpu_linear_input_gradient(ThreadPool& pool, float* dx, const float* dy, const Weight& w,
                               int rows) {
  const auto& weight = static_cast<const CpuWeight&>(w);
  if (rows == 0 || weight.in == 0) return;
  if (weight.out == 0) {
    std::fill_n(dx, static_cast<size_t>(rows) * weight.in, 0.0F);
    return;
  }
  if (weight.reuse) {
    multiply_packed(pool, dx, dy, weight.backward, rows, weight.in, weight.out);
    return;
  }
  const int blocks = blocks_of(rows);
  pool.run(blocks, [&](int block) {
    const Range range = split_evenly(rows, blocks, block);
    matmul(false, false, range.size(), weight.in, weight.out,
           dy + static_cast<size_t>(range.begin) * weight.out, weight.out, weight.data, weight.in,
           0, dx + static_cast<size_t>(range.begin) * weight.in, weight.in);
  });
}

void cpu_linear_weight_gradient(ThreadPool& pool, float* dw, const float* dy, const float* x,
                                int rows, int out, int in, bool accumulate) {
  if (out == 0 || in == 0) return;
  const int blocks = blocks_of(out);
  pool.run(blocks, [&](int block) {
    const Range range = split_evenly(out, blocks, block);
    matmul(true, false, range.size(), in, rows, dy + range.begin, out, x, in,
           accumulate ? 1.0F : 0.0F, dw + static_cast<size_t>(range.begin) * in, in);
  });
}

}  // namespace trireme
