#include "planner/look_ahead.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <future>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "planner/search.h"
#include "tests/planner/random_space.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

using Answer = std::variant<PlanResult, NoPlan>;

void expect_same(const Answer& a, const Answer& b) {
  ASSERT_EQ(a.index(), b.index());
  if (std::holds_alternative<NoPlan>(a)) {
    EXPECT_EQ(std::get<NoPlan>(a).reason, std::get<NoPlan>(b).reason);
    return;
  }
  const auto &first = std::get<PlanResult>(a), &second = std::get<PlanResult>(b);
  EXPECT_EQ(first.plan, second.plan);
  EXPECT_EQ(first.considered, second.considered);
  EXPECT_EQ(first.evaluated, second.evaluated);
  EXPECT_EQ(first.notes, second.notes);
  ASSERT_EQ(first.alternatives.size(), second.alternatives.size());
  for (size_t i = 0; i < first.alternatives.size(); ++i) {
    EXPECT_EQ(first.alternatives[i].layout, second.alternatives[i].layout);
    EXPECT_EQ(first.alternatives[i].prediction, second.alternatives[i].prediction);
  }
}

// Layouts, figures and what was looked at, of plans as of misses.
TEST(LookAhead, ASearchGoesTheSameWayWithAnyNumberOfThreads) {
  std::mt19937 random(5);
  int none = 0;
  for (int trial = 0; trial < 40; ++trial) {
    SCOPED_TRACE(trial);
    const auto [job, cluster] = random_space(random);
    PlanOptions options{.top = 4, .any_memory = trial % 4 == 3, .threads = 1};
    const Answer alone = try_plan(job, cluster, options);
    none += std::holds_alternative<NoPlan>(alone) ? 1 : 0;
    for (options.threads = 2; options.threads <= 8; options.threads *= 4) {
      SCOPED_TRACE(options.threads);
      expect_same(alone, try_plan(job, cluster, options));
    }
  }
  EXPECT_GT(none, 0);
  EXPECT_LT(none, 20);
}

class Lookouts : public ::testing::Test {
 protected:
  std::unique_ptr<Lookout> lookout() {
    return std::make_unique<Lookout>(job_, cluster_, options_, sequences_, schedules_, timings_,
                                     [](const std::string&, const std::string&) {});
  }
  Candidate degrees(int64_t order) {
    return lookout()->degrees({.data = 4, .micro_batches = 4}, 0, order);
  }

  const Job job_ = gpt2_job(gpt2_model(4, 64, 4, 256, 16), 16);
  const Cluster cluster_ = round_cluster(1, 4, 80);
  const PlanOptions options_ = {};
  const std::vector<std::vector<size_t>> sequences_ = {{0}};
  ScheduleCache schedules_;
  const std::shared_ptr<KnownTimings> timings_ = std::make_shared<KnownTimings>();
};

TEST_F(Lookouts, HaveRoomForNothingWithoutThreads) {
  LookAhead ahead({});
  EXPECT_EQ(ahead.room(), 0u);
  EXPECT_FALSE(ahead.least());
}

TEST_F(Lookouts, HandOutCandidatesLeastFirst) {
  LookAhead ahead({});
  for (const int64_t order : {2, 3, 1}) ahead.add({1.0, order, 0}, degrees(order), {.missing = 0});
  ahead.drop({1.0, 2, 0});
  const auto own = lookout();
  for (const int64_t order : {1, 3}) {
    ASSERT_EQ(ahead.least(), (LookAhead::Entry{1.0, order, 0}));
    const Look look = ahead.take(*ahead.least(), *own);
    ASSERT_FALSE(look.found.empty());
    EXPECT_EQ(look.found.front().order, order);
  }
  EXPECT_FALSE(ahead.least());
}

// Of all ways to spread a pipeline; returns how many there are.
int expect_spreads_no_faster(Lookout& lookout, const Candidate& options) {
  int count = 0;
  for (const Candidate& found : lookout.look(options, {}).found) {
    EXPECT_GE(found.seconds, options.seconds * (1 - 1e-12));
    const int ways = found.known == Known::spread ? 1 : expect_spreads_no_faster(lookout, found);
    count += ways;
  }
  return count;
}

// With ranks that recompute, most on the fastest groups is not the fastest way to spread a
// pipeline: a slow group in the middle may be where recomputation costs least.
TEST(LookoutBounds, HoldForAllWaysToSpreadAPipelineOverThreeKinds) {
  Cluster cluster = round_cluster(1, 2, 800);
  for (const double speed : {1.0 / 3, 0.99}) {
    NodeGroup& group = cluster.groups.emplace_back(cluster.groups.front());
    group.hosts = {"x" + std::to_string(cluster.groups.size())};
    group.device.fp32_flops *= speed;
  }
  Job job = gpt2_job(gpt2_model(96, 1024, 16, 300, 1024), 600);
  job.pins.recompute = Recompute::full;
  job.pins.recompute_ranks = 2;
  ScheduleCache schedules;
  const PlanOptions options;
  const std::vector<std::vector<size_t>> sequences = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}};
  Lookout lookout(job, cluster, options, sequences, schedules, std::make_shared<KnownTimings>(),
                  [](const std::string&, const std::string&) {});
  for (size_t sequence = 0; sequence < sequences.size(); ++sequence) {
    const Layout layout{.pipeline = 4, .micro_batches = 600};
    const Candidate degrees = lookout.degrees(layout, sequence, 0);
    for (const Candidate& option : lookout.with_options(degrees)) {
      EXPECT_GE(option.seconds, degrees.seconds * (1 - 1e-12));
      // Two of the four ranks are on one of the groups.
      EXPECT_EQ(expect_spreads_no_faster(lookout, option), 3);
    }
  }
}

void expect_same(const Look& a, const Look& b) {
  EXPECT_EQ(a.first_simulation, b.first_simulation);
  EXPECT_EQ(a.missed.size(), b.missed.size());
  EXPECT_EQ(a.set_aside.size(), b.set_aside.size());
  ASSERT_EQ(a.found.size(), b.found.size());
  for (size_t i = 0; i < a.found.size(); ++i) {
    EXPECT_EQ(a.found[i].layout.degrees(), b.found[i].layout.degrees());
    EXPECT_EQ(a.found[i].layout.placement, b.found[i].layout.placement);
    EXPECT_EQ(a.found[i].order, b.found[i].order);
    EXPECT_EQ(a.found[i].seconds, b.found[i].seconds);
    EXPECT_EQ(a.found[i].known, b.found[i].known);
    EXPECT_EQ(a.found[i].groups, b.found[i].groups);
  }
}

// Through all kinds of look, simulations on schedules that three threads share among them.
TEST_F(Lookouts, FindTheSameOnWhicheverThread) {
  std::vector<std::unique_ptr<Lookout>> lookouts;
  for (int i = 0; i < 3; ++i) lookouts.push_back(lookout());
  LookAhead ahead(std::move(lookouts));
  const auto alone = lookout(), own = lookout();
  std::vector<Candidate> candidates = {alone->degrees({.pipeline = 4, .micro_batches = 16}, 0, 0)};

  size_t looks = 0, simulations = 0;
  while (!candidates.empty()) {
    std::vector<Candidate> next;
    const size_t count = std::min(candidates.size(), ahead.room());
    for (size_t i = 0; i < count; ++i) ahead.add({1.0, 0, i}, candidates[i], {});
    for (size_t i = 0; i < count; ++i) {
      const Look expected = alone->look(candidates[i], {});
      expect_same(ahead.take({1.0, 0, i}, *own), expected);
      ++looks;
      simulations += candidates[i].known == Known::cut ? 1 : 0;
      for (const Candidate& found : expected.found) {
        if (found.known != Known::exact) next.push_back(found);
      }
    }
    next.insert(next.end(), candidates.begin() + static_cast<std::ptrdiff_t>(count),
                candidates.end());
    candidates = std::move(next);
  }
  EXPECT_GT(looks, 20u);
  EXPECT_GT(simulations, 10u);
}

// On a thread of its own: dualpipe-v cannot be built for three micro-batches, and who hears of it
// says so and throws.
TEST_F(Lookouts, PassOnWhatALookThrows) {
  std::promise<std::thread::id> begun;
  const auto complain = [&](const std::string& layout, const std::string&) {
    begun.set_value(std::this_thread::get_id());
    throw std::out_of_range(layout);
  };
  std::vector<std::unique_ptr<Lookout>> lookouts;
  lookouts.push_back(std::make_unique<Lookout>(job_, cluster_, options_, sequences_, schedules_,
                                               timings_, complain));
  LookAhead ahead(std::move(lookouts));
  const auto own = lookout();
  Candidate candidate = own->degrees({.pipeline = 2, .micro_batches = 3}, 0, 1);
  candidate.known = Known::paths;
  ahead.add({1.0, 1, 0}, candidate, {});
  EXPECT_NE(begun.get_future().get(), std::this_thread::get_id());
  EXPECT_THROW(ahead.take({1.0, 1, 0}, *own), std::out_of_range);
}

// While a thread looks at the first, the searching one looks at the second.
TEST_F(Lookouts, LookAtTheNextWhileTheyWait) {
  std::promise<void> begun, go_on;
  const auto wait = [&](const std::string&, const std::string&) {
    begun.set_value();
    go_on.get_future().wait();
    throw std::out_of_range("waited");
  };
  bool second = false;
  const auto note = [&](const std::string&, const std::string&) {
    if (!std::exchange(second, true)) go_on.set_value();
  };
  std::vector<std::unique_ptr<Lookout>> lookouts;
  lookouts.push_back(
      std::make_unique<Lookout>(job_, cluster_, options_, sequences_, schedules_, timings_, wait));
  LookAhead ahead(std::move(lookouts));
  Lookout own(job_, cluster_, options_, sequences_, schedules_, timings_, note);
  Candidate candidate = own.degrees({.pipeline = 2, .micro_batches = 3}, 0, 1);
  candidate.known = Known::paths;
  ahead.add({1.0, 1, 0}, candidate, {});
  begun.get_future().wait();
  ahead.add({1.0, 1, 1}, candidate, {});
  EXPECT_THROW(ahead.take({1.0, 1, 0}, own), std::out_of_range);
  EXPECT_TRUE(second);
  EXPECT_FALSE(ahead.take({1.0, 1, 1}, own).found.empty());
}

TEST_F(Lookouts, EndWithCandidatesLeft) {
  std::vector<std::unique_ptr<Lookout>> lookouts;
  lookouts.push_back(lookout());
  LookAhead ahead(std::move(lookouts));
  while (ahead.room() > 0) ahead.add({1.0, 1, ahead.room()}, degrees(1), {});
}

}  // namespace
}  // namespace trireme
