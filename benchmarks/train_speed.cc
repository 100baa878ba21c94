// How fast a CPU rank trains, as a share of what the machine's matrix products reach in the same
// run.
//
//   train_speed            one rank, one thread: forward + backward + AdamW against the GEMM peak
//                          (oneDNN fp32 2048^3, one thread); then two ranks over Gloo against one
//                          rank
//
// Shares and ratios are what counts; absolute times drift with the machine. Each share is taken
// against the median of GEMM timings made between the training steps, so both see the same machine.

#include <fmt/format.h>
#include <malloc.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "benchmarks/training_job.h"
#include "runtime/comm/gloo_transport.h"
#include "runtime/comm/memory_transport.h"
#include "runtime/device/cpu_matmul.h"
#include "runtime/train/trainer.h"

namespace trireme::bench {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double gemm_seconds() {
  constexpr int kSize = 2048;
  constexpr size_t kElements = size_t{kSize} * kSize;
  static std::vector<float> a(kElements, 0.5F);
  static std::vector<float> b(kElements, 0.25F);
  static std::vector<float> c(kElements);
  const double begin = Trace::now();
  matmul(false, false, kSize, kSize, kSize, a.data(), kSize, b.data(), kSize, 0, c.data(), kSize);
  return Trace::now() - begin;
}
constexpr double kGemmFlops = 2.0 * 2048 * 2048 * 2048;

void one_rank(const Shape& shape, int steps) {
  const Job job = training_job(shape);
  const Plan plan = training_plan(job, 1, 1, 1, shape.micro_batch);
  MemoryWorld world(1);
  const auto transport = world.transport(Rank(0));
  const auto device = make_cpu_device(1);
  StatusPage status;
  Trainer trainer(plan, Rank(0), *device, *transport, status, {});
  trainer.step(false);
  trainer.step(false);
  gemm_seconds();
  std::vector<double> step_times;
  std::vector<double> gemm_times;
  for (int i = 0; i < steps; ++i) {
    gemm_times.push_back(gemm_seconds());
    step_times.push_back(trainer.step(false).seconds);
  }
  const double peak = kGemmFlops / median(gemm_times);
  const double full = step_flops(job, false) / median(step_times);
  const double causal = step_flops(job, true) / median(step_times);
  fmt::print(
      "{:<22} GEMM {:6.1f} GFLOP/s   step {:7.1f} ms   {:5.1f} % of GEMM peak ({:.1f} % counting "
      "causal attention)\n",
      shape.name, peak / 1e9, median(step_times) * 1e3, 100 * full / peak, 100 * causal / peak);
}

// A store for ranks that are threads.
class LocalStore {
 public:
  Rendezvous rendezvous() {
    return {[this](const std::string& key, const std::string& value) {
              {
                const std::lock_guard lock(mutex_);
                values_[key] = value;
              }
              changed_.notify_all();
            },
            [this](const std::string& key) {
              std::unique_lock lock(mutex_);
              changed_.wait(lock, [&] { return values_.count(key) > 0; });
              return values_[key];
            }};
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
};

double ranks_seconds(const Plan& plan, int steps) {
  const int ranks = plan.layout.ranks();
  LocalStore store;
  const auto rendezvous = store.rendezvous();
  std::vector<double> times;
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      const auto device = make_cpu_device(1);
      const auto transport = connect_gloo(Rank(r), ranks, everybody_else(Rank(r), ranks),
                                          "localhost", rendezvous, std::chrono::minutes(1));
      StatusPage status;
      Trainer trainer(plan, Rank(r), *device, *transport, status, {});
      for (int i = 0; i < steps + 2; ++i) {
        const double seconds = trainer.step(false).seconds;
        if (r == 0 && i >= 2) times.push_back(seconds);
      }
      std::vector<Rank> all;
      for (int i = 0; i < ranks; ++i) all.emplace_back(i);
      make_message_communicator(*transport, all, 0)->barrier();
    });
  }
  for (auto& thread : threads) thread.join();
  return median(times);
}

// Tensor and data ranks share whole batches; the pipeline has 8 micro-batches.
void two_ranks(const Shape& shape, int steps) {
  const Job job = training_job(shape);
  struct Case {
    const char* name;
    int tensor, pipeline, data, micro_batch;
  };
  for (const auto& c :
       {Case{"tensor 2", 2, 1, 1, 4}, Case{"pipeline 2", 1, 2, 1, 1}, Case{"data 2", 1, 1, 2, 4}}) {
    const double one = ranks_seconds(training_plan(job, 1, 1, 1, c.micro_batch), steps);
    const Plan plan = training_plan(job, c.tensor, c.pipeline, c.data, c.micro_batch);
    const double two = ranks_seconds(plan, steps);
    const int m = plan.layout.micro_batches;
    const double bubble = (c.pipeline - 1.0) / (m + c.pipeline - 1.0);  // of 1F1B
    fmt::print(
        "{:<22} {:<12} step {:7.1f} ms for {:7.1f} ms alone   efficiency {:5.1f} %, {:5.1f} % "
        "beyond the bubble\n",
        shape.name, c.name, two * 1e3, one * 1e3, 100 * one / (2 * two),
        100 * one / (2 * two) / (1 - bubble));
  }
}

}  // namespace
}  // namespace trireme::bench

int main() {
  using namespace trireme::bench;
  // As in trireme-rank.
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  one_rank({"gpt 6x384, 4x256", 6, 384, 6, 256, 256, 4, 4}, 15);
  one_rank({"gpt2-124m, 4x64", 12, 768, 12, 50257, 64, 4, 4}, 9);
  two_ranks({"gpt 6x384, 8x256", 6, 384, 6, 256, 256, 8, 1}, 9);
}
