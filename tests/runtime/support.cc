#include "tests/runtime/support.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "planner/plan/plan_check.h"
#include "planner/schedules/schedules.h"
#include "runtime/comm/memory_transport.h"
#include "topology/base/check.h"

namespace trireme::test {
namespace {

Job tiny_job(int steps) {
  Job job;
  job.name = "tiny";
  job.model.layers = 8;
  job.model.hidden = 24;
  job.model.heads = 6;
  job.model.kv_heads = 6;
  job.model.head_dim = 4;
  job.model.ffn_hidden = 50;
  job.model.vocab = 257;
  job.model.sequence = 16;
  job.model.positions = 20;
  // Large enough that every gradient is well above rounding.
  job.model.init_std = 0.1;
  job.training.global_batch = 12;
  job.training.steps = steps;
  job.training.warmup_steps = 20;
  job.training.seed = 7;
  job.data.path = std::string(TRIREME_SOURCE_DIR) + "/tests/data/tokens.u16";
  job.data.format = DataFormat::u16;
  job.data.order = SampleOrder::sequential;
  return job;
}

// Puts a rank's local part into the whole parameter.
void place(const ParameterSpec& spec, const float* local, std::vector<float>& whole) {
  whole.resize(static_cast<size_t>(spec.rows) * spec.columns);
  const int first_row = spec.sharding == Sharding::rows ? spec.local.begin : 0;
  const int first_column = spec.sharding == Sharding::columns ? spec.local.begin : 0;
  for (int r = 0; r < spec.local_rows(); ++r) {
    for (int c = 0; c < spec.local_columns(); ++c) {
      whole[static_cast<size_t>(first_row + r) * spec.columns + first_column + c] =
          local[static_cast<size_t>(r) * spec.local_columns() + c];
    }
  }
}

class Collector {
 public:
  explicit Collector(RunResult& result) : result_(result) {}
  void gradients(const Trainer& trainer, size_t step) {
    const std::lock_guard lock(mutex_);
    if (result_.gradients.size() <= step) result_.gradients.resize(step + 1);
    for (const auto& view : trainer.stages()) {
      for (const auto& spec : view.parameters->specs) {
        if (!spec.tied_copy)
          place(spec, view.gradients + spec.offset, result_.gradients[step][spec.name]);
      }
    }
  }
  void weights(const Trainer& trainer) {
    const std::lock_guard lock(mutex_);
    for (const auto& view : trainer.stages()) {
      for (const auto& spec : view.parameters->specs) {
        const auto name = spec.tied_copy ? spec.name + " (tied copy)" : spec.name;
        place(spec, view.weights + spec.offset, result_.weights[name]);
      }
    }
  }

 private:
  std::mutex mutex_;
  RunResult& result_;
};

std::string trace_path(const RunOptions& options, Rank rank) {
  if (options.trace_directory.empty()) return "";
  return fmt::format("{}/rank-{}.json", options.trace_directory, rank.value);
}

void run_rank(const Plan& plan, Rank rank, Device& device, Transport& transport,
              const RunOptions& options, Collector& collector, RunResult& result) {
  StatusPage status;
  Trainer trainer(plan, rank, device, transport, status,
                  {trace_path(options, rank), options.checkpoint_path, options.mutations});
  const int last = options.until_step < 0 ? plan.job.training.steps : options.until_step;
  const int first = trainer.next_step();
  bool stopped = false;
  while (!stopped && trainer.next_step() < last) {
    const StepReport report =
        trainer.step(rank.value == 0 && trainer.next_step() == options.stop_in_step);
    stopped = report.stop;
    if (rank.value == 0) result.reports.push_back(report);
    const bool first_replica = coordinates_of(plan.layout, rank).data == 0;
    if (first_replica && report.step - first < options.gradient_steps) {
      collector.gradients(trainer, static_cast<size_t>(report.step - first));
    }
  }
  if (!options.save_into.empty()) trainer.save({options.save_into});
  if (coordinates_of(plan.layout, rank).data == 0) collector.weights(trainer);
}

}  // namespace

Job tiny_gpt(int steps) {
  Job job = tiny_job(steps);
  job.model.family = Family::gpt2;
  job.model.tied_embeddings = true;
  return job;
}

Job tiny_llama(int steps) {
  Job job = tiny_job(steps);
  job.model.family = Family::llama;
  job.model.kv_heads = 3;
  job.model.norm_epsilon = 1e-6;
  return job;
}

std::string to_string(const Degrees& d) {
  return fmt::format("tensor {} pipeline {} data {} chunks {} {} micro-batch {}", d.tensor,
                     d.pipeline, d.data, d.chunks, d.schedule, d.micro_batch);
}

Plan plan_for(const Job& job, const Degrees& degrees) {
  ScheduleRequest request;
  request.name = degrees.schedule;
  request.pipeline = degrees.pipeline;
  request.chunks = degrees.chunks;
  request.micro_batches = job.training.global_batch / (degrees.data * degrees.micro_batch);
  return plan_for(job, degrees, make_schedule(request));
}

Plan plan_for(const Job& job, const Degrees& degrees, Schedule schedule) {
  Plan plan;
  plan.cluster = "test";
  plan.device = "cpu";
  plan.job = job;
  Layout& layout = plan.layout;
  layout.tensor = degrees.tensor;
  layout.pipeline = degrees.pipeline;
  layout.data = degrees.data;
  layout.chunks = degrees.chunks;
  layout.schedule = schedule.name;
  layout.micro_batch = degrees.micro_batch;
  layout.micro_batches = job.training.global_batch / (degrees.data * degrees.micro_batch);
  plan.schedule = std::move(schedule);
  std::vector<int> layers;
  for (int s = 0; s < layout.stages(); ++s)
    layers.push_back(split_evenly(job.model.layers, layout.stages(), s).size());
  cut(plan, layers);
  for (int r = 0; r < layout.ranks(); ++r) plan.placement.push_back({"localhost", r});
  return plan;
}

Plan with_shares(const Job& job, Degrees degrees, const std::vector<Share>& shares) {
  std::vector<Schedule> schedules;
  degrees.data = 0;
  for (const Share& share : shares) {
    degrees.data += share.replicas;
    schedules.push_back(make_schedule({.name = degrees.schedule,
                                       .pipeline = degrees.pipeline,
                                       .micro_batches = share.micro_batches,
                                       .chunks = degrees.chunks}));
  }
  Plan plan = plan_for(job, degrees, schedules.front());
  plan.layout.micro_batches = shares.front().micro_batches;
  plan.layout.shares = shares;
  plan.other_schedules.assign(schedules.begin() + 1, schedules.end());
  return plan;
}

void cut(Plan& plan, const std::vector<int>& layers) {
  plan.stages.clear();
  int next = 0;
  for (size_t s = 0; s < layers.size(); ++s) {
    const StagePlace place = plan.schedule.stages[s];
    plan.stages.push_back(
        {place.rank, place.chunk, next, layers[s], s == 0, s + 1 == layers.size()});
    next += layers[s];
  }
}

void expect_same_bits(const RunResult& run, const RunResult& reference, const std::string& what) {
  ASSERT_EQ(run.reports.size(), reference.reports.size());
  for (size_t i = 0; i < run.reports.size(); ++i) {
    EXPECT_EQ(run.reports[i].loss, reference.reports[i].loss) << what << ", loss of step " << i;
    EXPECT_EQ(run.reports[i].grad_norm, reference.reports[i].grad_norm)
        << what << ", gradient norm of step " << i;
  }
  for (const auto& [name, values] : reference.weights) {
    const auto found = run.weights.find(name);
    ASSERT_NE(found, run.weights.end()) << what << " lacks " << name;
    EXPECT_TRUE(found->second == values) << what << ": " << name << " differs";
  }
}

RunResult run_in_memory(const Plan& plan, const RunOptions& options) {
  const auto fault = find_fault(plan);
  if (fault) throw Error(ErrorKind::bad_input, fault->key + ": " + fault->found_and_expected);
  const int ranks = plan.layout.ranks();
  std::vector<std::unique_ptr<Device>> devices;  // outlive what of their memory was sent
  for (int r = 0; r < ranks; ++r) devices.push_back(make_cpu_device(options.threads));
  MemoryWorld world(ranks);
  RunResult result;
  Collector collector(result);
  std::exception_ptr failure;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        auto transport = world.transport(Rank(r));
        if (options.wrap) transport = options.wrap(std::move(transport));
        run_rank(plan, Rank(r), *devices[static_cast<size_t>(r)], *transport, options, collector,
                 result);
      } catch (const std::exception&) {
        const std::lock_guard lock(mutex);
        if (failure == nullptr) failure = std::current_exception();
        world.abort();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (failure != nullptr) std::rethrow_exception(failure);
  return result;
}

std::string message_of(ErrorKind kind, const std::function<void()>& action) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "";
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  TRIREME_CHECK(a.size() == b.size());
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/trireme-test-XXXXXX";
  TRIREME_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::filesystem::remove_all(path_);
}

}  // namespace trireme::test
