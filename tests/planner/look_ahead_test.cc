#include "planner/look_ahead.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
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
    const Answer alone = try_plan(job, cluster, {.top = 4, .threads = 1});
    none += std::holds_alternative<NoPlan>(alone) ? 1 : 0;
    for (const int threads : {2, 8}) {
      SCOPED_TRACE(threads);
      expect_same(alone, try_plan(job, cluster, {.top = 4, .threads = threads}));
    }
  }
  EXPECT_GT(none, 0);
  EXPECT_LT(none, 20);
}

class Lookouts : public ::testing::Test {
 protected:
  std::unique_ptr<Lookout> lookout() {
    return std::make_unique<Lookout>(job_, cluster_, options_, sequences_, schedules_,
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
};

TEST_F(Lookouts, HaveRoomForNothingWithoutThreads) {
  LookAhead ahead({});
  EXPECT_EQ(ahead.room(), 0u);
  EXPECT_FALSE(ahead.least());
}

TEST_F(Lookouts, HandOutCandidatesLeastFirst) {
  LookAhead ahead({});
  for (const int64_t order : {2, 3, 1}) ahead.add({1.0, order, 0}, degrees(order), 0);
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

TEST_F(Lookouts, FindTheSameOnWhicheverThread) {
  std::vector<std::unique_ptr<Lookout>> lookouts;
  for (int i = 0; i < 3; ++i) lookouts.push_back(lookout());
  LookAhead ahead(std::move(lookouts));
  const size_t room = ahead.room();
  ASSERT_GT(room, 3u);
  const auto own = lookout();
  const Look expected = own->look(degrees(7), 0);
  for (size_t i = 0; i < room; ++i) ahead.add({1.0, 7, i}, degrees(7), 0);
  EXPECT_EQ(ahead.room(), 0u);
  for (size_t i = 0; i < room; ++i) {
    const Look look = ahead.take({1.0, 7, i}, *own);
    ASSERT_EQ(look.found.size(), expected.found.size());
    EXPECT_EQ(look.found.front().layout, expected.found.front().layout);
    EXPECT_EQ(look.found.front().seconds, expected.found.front().seconds);
  }
}

// Some schedules cannot be built for three micro-batches.
TEST_F(Lookouts, PassOnWhatALookThrows) {
  const auto strict = [&] {
    return std::make_unique<Lookout>(
        job_, cluster_, options_, sequences_, schedules_,
        [](const std::string& layout, const std::string&) { throw std::out_of_range(layout); });
  };
  const auto own = strict();
  Candidate candidate = own->degrees({.pipeline = 2, .micro_batches = 3}, 0, 1);
  candidate.known = Known::spread;
  std::vector<std::unique_ptr<Lookout>> lookouts;
  lookouts.push_back(strict());
  LookAhead ahead(std::move(lookouts));
  ahead.add({1.0, 1, 0}, candidate, std::numeric_limits<double>::infinity());
  EXPECT_THROW(ahead.take({1.0, 1, 0}, *own), std::out_of_range);
}

TEST_F(Lookouts, EndWithCandidatesLeft) {
  std::vector<std::unique_ptr<Lookout>> lookouts;
  lookouts.push_back(lookout());
  LookAhead ahead(std::move(lookouts));
  while (ahead.room() > 0) ahead.add({1.0, 1, ahead.room()}, degrees(1), 0);
}

}  // namespace
}  // namespace trireme
