// Rehearsals inside one process: the ranks are threads, messages wait in memory.

#include "runtime/train/rehearsal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "planner/simulator.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/memory_transport.h"
#include "runtime/comm/tree.h"
#include "runtime/model/parameters.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

constexpr double kMillisecond = 1e-3;
// So large that it drowns everything else that a rank holds; only address space, of course.
constexpr double kActivationBytes = 1e9;

Plan rehearsed(const Degrees& degrees) {
  Plan plan = plan_for(tiny_gpt(2), degrees);
  plan.prediction.stages.assign(plan.stages.size(),
                                {kMillisecond, kMillisecond, kMillisecond / 2, kActivationBytes});
  plan.prediction.transfer_seconds = kMillisecond / 2;
  plan.prediction.hop_seconds = kMillisecond / 4;
  return plan;
}

double simulated_seconds(const Plan& plan) {
  Costs costs;
  costs.stages = {{kMillisecond, kMillisecond, kMillisecond / 2}};
  costs.transfer = plan.prediction.transfer_seconds;
  costs.hop = plan.prediction.hop_seconds;
  return simulate(plan.schedule, costs).makespan;
}

// Counts what passes, by what it is for.
struct Traffic {
  std::atomic<int64_t> pipeline_messages{0};
  std::atomic<int64_t> pipeline_floats{0};
  std::atomic<int64_t> gradient_floats{0};
};
class CountingTransport final : public Transport {
 public:
  CountingTransport(std::unique_ptr<Transport> inner, Traffic& traffic)
      : inner_(std::move(inner)), traffic_(traffic) {}
  Rank rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    if (space_of(tag) == TagSpace::pipeline) {
      ++traffic_.pipeline_messages;
      traffic_.pipeline_floats += static_cast<int64_t>(data.size());
    }
    if (space_of(tag) == TagSpace::gradient)
      traffic_.gradient_floats += static_cast<int64_t>(data.size());
    inner_->send(to, tag, data, std::move(keep));
  }
  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    return inner_->receive(from, tag, into);
  }

 private:
  std::unique_ptr<Transport> inner_;
  Traffic& traffic_;
};

// Calls body(rank, transport) on a thread for every rank.
template <class Body>
void on_all_ranks(int ranks, Traffic& traffic, Body body) {
  MemoryWorld world(ranks);
  std::exception_ptr failure;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        CountingTransport transport(world.transport(Rank(r)), traffic);
        body(Rank(r), transport);
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
        world.abort();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (failure != nullptr) std::rethrow_exception(failure);
}

// Two steps; the second one's report on every rank.
std::vector<RehearsedStep> rehearse(const Plan& plan, const Rehearsal& rehearsal, Traffic& traffic,
                                    const std::string& trace_directory = "") {
  std::vector<RehearsedStep> reports(plan.layout.ranks());
  on_all_ranks(plan.layout.ranks(), traffic, [&](Rank rank, Transport& transport) {
    StatusPage status;
    const std::string trace =
        trace_directory.empty() ? "" : RunDirectory{trace_directory}.rank_trace(rank);
    RehearsalTrainer trainer(plan, rank, rehearsal, transport, status, trace);
    trainer.step(false);
    reports[rank.value] = trainer.step(rank.value == 1);
  });
  return reports;
}

const std::vector<Degrees>& layouts() {
  static const std::vector<Degrees> kLayouts = {
      {.pipeline = 4},
      {.pipeline = 4, .schedule = "gpipe"},
      {.pipeline = 2, .chunks = 2, .schedule = "interleaved"},
      {.tensor = 2, .pipeline = 2, .data = 2},
      {.pipeline = 4, .schedule = "zb-h1"},
      {.pipeline = 2, .chunks = 2, .schedule = "zb-v"},
      {.pipeline = 2, .chunks = 2, .schedule = "dualpipe-v"},
  };
  return kLayouts;
}

TEST(Rehearsal, NoStepIsShorterThanTheSimulatedOne) {
  for (const Degrees& degrees : layouts()) {
    const Plan plan = rehearsed(degrees);
    Traffic traffic;
    const auto reports = rehearse(plan, {}, traffic);
    // Rank 0 starts the first op and ends the last one in all of these. The simulator holds back
    // what the first op of an overlapped pair produces until the pair ends.
    if (degrees.schedule != "dualpipe-v") {
      EXPECT_GE(reports[0].window_seconds, simulated_seconds(plan) - 1e-9) << to_string(degrees);
    }
    for (const auto& report : reports) {
      const int ops = plan.layout.micro_batches * plan.layout.chunks;
      EXPECT_NEAR(report.busy_seconds, ops * 2.5 * kMillisecond, 1e-9) << to_string(degrees);
      EXPECT_GE(report.seconds, report.window_seconds);
      EXPECT_TRUE(report.stop) << "rank 1 was asked to stop";
    }
  }
}

// The second replica takes a third of the micro-batches of the first, on devices half as fast.
TEST(Rehearsal, UnequalReplicasKeepTheirOwnTimesAndSchedules) {
  Job job = tiny_gpt(2);
  job.training.reduction = Reduction::fast;
  Plan plan = with_shares(job, {.pipeline = 2, .data = 2}, {{1, 9}, {1, 3}});
  plan.prediction.stages.assign(2, {kMillisecond, kMillisecond, kMillisecond / 2, 0});
  PipelineTimes& slow = plan.prediction.other_shares.emplace_back();
  slow.stages.assign(2, {2 * kMillisecond, 2 * kMillisecond, kMillisecond, 0});
  slow.transfer_seconds = kMillisecond;
  Traffic traffic;
  const auto reports = rehearse(plan, {}, traffic);
  ASSERT_EQ(reports.size(), 4u);
  for (int pipeline = 0; pipeline < 2; ++pipeline) {
    const int fast = rank_at(plan.layout, {0, 0, pipeline}).value;
    const int slower = rank_at(plan.layout, {0, 1, pipeline}).value;
    EXPECT_NEAR(reports[fast].busy_seconds, 9 * 2.5 * kMillisecond, 1e-9);
    EXPECT_NEAR(reports[slower].busy_seconds, 3 * 5 * kMillisecond, 1e-9);
  }
  // 1F1B of two ranks: (m + 1) micro-batches' work on the first, and the first's and the last's
  // message each way.
  EXPECT_GE(reports[0].window_seconds, 10 * 2.5 * kMillisecond - 1e-9);
  const int first_of_slow = rank_at(plan.layout, {0, 1, 0}).value;
  EXPECT_GE(reports[first_of_slow].window_seconds, 4 * 5 * kMillisecond + 2 * kMillisecond - 1e-9);
}

TEST(Rehearsal, CountsTheActivationsThatTheScheduleHolds) {
  for (const Degrees& degrees : layouts()) {
    const Plan plan = rehearsed(degrees);
    Traffic traffic;
    const auto reports = rehearse(plan, {}, traffic);
    const auto peaks = simulate(plan.schedule, {}).peak_activations;
    for (int p = 0; p < plan.layout.pipeline; ++p) {
      const double activations = reports[0].peak_bytes[p] / kActivationBytes;
      EXPECT_EQ(std::floor(activations), peaks[p]) << to_string(degrees) << " on " << p;
      EXPECT_LT(activations - peaks[p], 0.01) << "the tiny rest: weights, gradients, messages";
    }
  }
}

// Four bytes of weight, gradient and each moment per parameter; each parameter may be followed by
// up to 15 floats of padding in each of the four.
TEST(Rehearsal, CountsWeightsGradientsAndOptimizerState) {
  Plan plan = plan_for(tiny_gpt(2), {});
  plan.prediction.stages.assign(1, {kMillisecond, 0, 0, 0});
  plan.job.training.reduction = Reduction::fast;  // one gradient buffer
  // The tied head's gradient has a place of its own.
  const double tied = static_cast<double>(plan.job.model.vocab) * plan.job.model.hidden;
  const double expected = 16.0 * static_cast<double>(total_parameters(plan.job.model)) + 4 * tied;
  const double padding = 16.0 * 15 * static_cast<double>(all_parameters(plan.job.model).size());
  Traffic traffic;
  on_all_ranks(1, traffic, [&](Rank rank, Transport& transport) {
    StatusPage status;
    RehearsalTrainer trainer(plan, rank, {}, transport, status, "");
    const double counted = trainer.step(false).peak_bytes.at(0);
    EXPECT_GE(counted, expected);
    EXPECT_LE(counted, expected + padding);
  });
}

TEST(Rehearsal, SendsEveryActivationAtItsRealSizeOrAShareOfIt) {
  const Plan plan = rehearsed({.tensor = 2, .pipeline = 2, .data = 2});
  const int64_t floats = int64_t{1} * plan.job.model.sequence * plan.job.model.hidden;
  // 2 steps, 4 pipelines, one activation and one gradient for each micro-batch.
  const int64_t messages = int64_t{2} * 4 * 2 * plan.layout.micro_batches;
  Traffic whole;
  rehearse(plan, {}, whole);
  EXPECT_EQ(whole.pipeline_messages, messages);
  EXPECT_EQ(whole.pipeline_floats, messages * floats);
  EXPECT_GT(whole.gradient_floats, 0);
  Traffic quarter;
  rehearse(plan, {.wire_scale = 0.25, .time_scale = 1}, quarter);
  EXPECT_EQ(quarter.pipeline_floats, messages * floats / 4);
  EXPECT_LT(quarter.gradient_floats, whole.gradient_floats / 3);
  Traffic least;
  rehearse(plan, {.wire_scale = 1e-9, .time_scale = 1}, least);
  EXPECT_EQ(least.pipeline_floats, messages * 2) << "the time that a message carries";
}

TEST(Rehearsal, ATimeScaleStretchesTheClockAndNotTheReport) {
  const Plan plan = rehearsed({.pipeline = 2});
  Traffic traffic;
  const auto reports = rehearse(plan, {.wire_scale = 1, .time_scale = 3}, traffic);
  EXPECT_NEAR(reports[1].busy_seconds, plan.layout.micro_batches * 2.5 * kMillisecond, 1e-9);
  EXPECT_GE(reports[0].window_seconds, simulated_seconds(plan) - 1e-9);
}

TEST(Rehearsal, TracesEveryOp) {
  const TemporaryDirectory directory;
  const Plan plan = rehearsed({.pipeline = 2});
  std::filesystem::create_directories(RunDirectory{directory.path()}.trace());
  Traffic traffic;
  rehearse(plan, {}, traffic, directory.path());
  for (int r = 0; r < 2; ++r) {
    std::ifstream file(RunDirectory{directory.path()}.rank_trace(Rank(r)));
    std::vector<std::string> ops;
    for (const auto& event : nlohmann::json::parse(file)) {
      if (event.value("cat", "") == "op") ops.push_back(event["name"]);
    }
    std::vector<std::string> planned;
    for (int step = 0; step < 2; ++step) {
      for (const Op& op : plan.schedule.ranks[r]) planned.push_back(to_string(op));
    }
    EXPECT_EQ(ops, planned);
  }
}

TEST(Rehearsal, ForwardsThatNeverGoBackKeepNothing) {
  const Plan plan = rehearsed({.pipeline = 2, .schedule = "forward-only"});
  Traffic traffic;
  const auto reports = rehearse(plan, {}, traffic);
  EXPECT_NEAR(reports[0].busy_seconds, plan.layout.micro_batches * kMillisecond, 1e-9);
  EXPECT_LT(reports[0].peak_bytes[0], kActivationBytes);
  EXPECT_EQ(traffic.gradient_floats, 0);
}

// connect_gloo needs both sides to name each other, each once and in order.
TEST(RehearsalPeers, AreMutualAndFew) {
  for (const Degrees& degrees : layouts()) {
    const Plan plan = rehearsed(degrees);
    const int ranks = plan.layout.ranks();
    for (int r = 0; r < ranks; ++r) {
      const auto peers = rehearsal_peers(plan, Rank(r));
      EXPECT_TRUE(std::is_sorted(peers.begin(), peers.end()));
      for (const Rank peer : peers) {
        const auto theirs = rehearsal_peers(plan, peer);
        EXPECT_NE(peer, Rank(r));
        EXPECT_EQ(std::count(theirs.begin(), theirs.end(), Rank(r)), 1);
      }
    }
  }
  EXPECT_LE(rehearsal_peers(rehearsed({.pipeline = 8}), Rank(3)).size(), 5U);
}

TEST(TreeMaximum, IsTheLargestOfEveryRankOnEveryRank) {
  for (int ranks = 1; ranks <= 17; ++ranks) {
    Traffic traffic;
    on_all_ranks(ranks, traffic, [&](Rank rank, Transport& transport) {
      for (int round = 0; round < 3; ++round) {
        std::vector<double> values(static_cast<size_t>(ranks), -1e300);
        values[rank.value] = rank.value + 0.1 * round;
        tree_maximum(transport, values);
        for (int r = 0; r < ranks; ++r) EXPECT_EQ(values[r], r + 0.1 * round);
      }
    });
  }
}

TEST(EmulatedDevice, CountsWhatIsAllocatedAndTouchesNothing) {
  EmulatedDevice device;
  constexpr size_t kFloats = size_t{1} << 38;  // a terabyte
  {
    const Buffer buffer = device.allocate(kFloats);
    device.zero(buffer.data(), buffer.size());
    EXPECT_EQ(device.held_bytes(), kFloats * sizeof(float));
  }
  EXPECT_EQ(device.held_bytes(), 0U);
  EXPECT_EQ(device.peak_bytes(), kFloats * sizeof(float));
}

TEST(EmulatedStream, OpsFollowEachOtherAndTheirInputs) {
  EmulatedStream stream;
  stream.start();
  const double first = stream.run(10);
  EXPECT_DOUBLE_EQ(stream.run(5), first + 5);
  stream.await_input(first + 20);
  EXPECT_DOUBLE_EQ(stream.run(1), first + 21);
  stream.await_input(first);  // long there
  EXPECT_DOUBLE_EQ(stream.run(2), first + 23);
  EXPECT_DOUBLE_EQ(stream.busy(), 18);
  EXPECT_NEAR(stream.elapsed(), 33, 1e-6);
  EXPECT_EQ(stream.slipped(), 0);
}

}  // namespace
}  // namespace trireme::test
