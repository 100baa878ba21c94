#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "planner/checker.h"
#include "planner/schedules/schedules.h"
#include "planner/synthesis/automatic.h"
#include "tests/planner/synthesis_instances.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

constexpr double kNear = 1e-9;

// Every order of the ops of one rank that keeps a micro-batch's ops in order and the limit: all
// of them, micro-batches in any order.
std::vector<std::vector<Op>> all_programs(int rank, int pipeline, int micro_batches, int limit) {
  std::vector<std::vector<Op>> found;
  std::vector<Op> program;
  std::vector<int> done(static_cast<size_t>(micro_batches), 0);  // ops of each: F, I, W
  int held = 0;
  const OpKind kinds[] = {OpKind::forward, OpKind::backward_input, OpKind::backward_weight};
  const std::function<void()> extend = [&] {
    if (program.size() == 3 * done.size()) found.push_back(program);
    for (size_t i = 0; i < done.size(); ++i) {
      if (done[i] == 3 || (done[i] == 0 && held == limit)) continue;
      const int change = done[i] == 0 ? 1 : done[i] == 2 ? -1 : 0;
      program.push_back({kinds[done[i]], false, rank, static_cast<int>(i)});
      ++done[i];
      held += change;
      extend();
      held -= change;
      --done[i];
      program.pop_back();
    }
  };
  TRIREME_CHECK(rank < pipeline);
  extend();
  return found;
}

// The least makespan of two ranks with one stage each, over all programs of both. Programs of
// rank 1 are tried against all of rank 0 only in the given order of micro-batches there, which
// renaming them makes no loss.
double least_makespan(const Costs& costs, int micro_batches, int limit0, int limit1) {
  double least = std::numeric_limits<double>::infinity();
  Schedule schedule;
  schedule.micro_batches = micro_batches;
  schedule.stages = loop_placement(2, 1);
  const auto second = all_programs(1, 2, micro_batches, limit1);
  for (const auto& first : all_programs(0, 2, micro_batches, limit0)) {
    int last = -1;
    const bool named_in_order = std::all_of(first.begin(), first.end(), [&](const Op& op) {
      return op.kind != OpKind::forward || op.micro_batch == ++last;
    });
    if (!named_in_order) continue;
    for (const auto& other : second) {
      schedule.ranks = {first, other};
      if (!check_schedule(schedule).legal) continue;
      least = std::min(least, makespan_of(schedule, costs));
    }
  }
  return least;
}

std::vector<double> limits_of(const AutoRequest& request) {
  const double all = request.micro_batches * request.chunks;
  std::vector<double> limit = request.memory_limit.value_or(std::vector<double>{all});
  if (limit.size() == 1) limit.assign(static_cast<size_t>(request.pipeline), limit.front());
  return limit;
}

double best_of_family(const AutoRequest& request) {
  double best = std::numeric_limits<double>::infinity();
  for (const std::string& name : built_schedules()) {
    if (name == "auto" || name == "pipedream" || name == "forward-only") continue;
    for (const bool latency_aware : {false, true}) {
      ScheduleRequest member{.name = name,
                             .pipeline = request.pipeline,
                             .micro_batches = request.micro_batches,
                             .chunks = request.chunks,
                             .costs = request.costs};
      member.latency_aware = latency_aware;
      if (request.memory_limit) {
        member.memory_limit = {request.memory_limit->begin(), request.memory_limit->end()};
      }
      try {
        best = std::min(best, makespan_of(make_schedule(member), request.costs));
      } catch (const Error&) {  // not for this shape or memory
      }
    }
  }
  return best;
}

std::string refusal(const AutoRequest& request) {
  try {
    choose_schedule(request);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "";
}

TEST(ChooseSchedule, IsExactlyOptimalWhereAllInterleavingsCanBeTried) {
  RandomRequests random(7);
  for (int round = 0; round < 12; ++round) {
    AutoRequest request = random.next(1, 2, 2);
    const int limit0 = random.between(1, 2), limit1 = random.between(1, 2);
    request.memory_limit = std::vector<double>{1.0 * limit0, 1.0 * limit1};
    const double least = least_makespan(request.costs, request.micro_batches, limit0, limit1);
    const AutoChoice choice = choose_schedule(request);
    EXPECT_NEAR(choice.makespan, least, kNear * least) << "round " << round;
    EXPECT_LE(choice.lower_bound, least * (1 + kNear)) << "round " << round;
  }
}

TEST(ChooseSchedule, IsNeverWorseThanTheFamilyAndKeepsTheLimitOnEveryRank) {
  RandomRequests random(1);
  int uneven = 0, better = 0;
  for (int round = 0; round < 60; ++round) {
    AutoRequest request = random.next(1 + round % 2);
    request.effort = 2'000'000;
    if (round % 5 == 0 && request.memory_limit) {  // another limit on every rank
      std::vector<double> limits;
      for (int rank = 0; rank < request.pipeline; ++rank) {
        limits.push_back(random.between(request.chunks, 2 * request.pipeline));
      }
      request.memory_limit = limits;
    }
    const AutoChoice choice = choose_schedule(request);
    const double family = best_of_family(request);
    ASSERT_TRUE(check_schedule(choice.schedule).legal) << "round " << round;
    EXPECT_NEAR(makespan_of(choice.schedule, request.costs), choice.makespan,
                kNear * choice.makespan);
    EXPECT_LE(choice.makespan, family * (1 + kNear)) << "round " << round;
    EXPECT_LE(choice.lower_bound, choice.makespan * (1 + kNear)) << "round " << round;
    const std::vector<double> limits = limits_of(request);
    const std::vector<int> peaks = simulate(choice.schedule, request.costs).peak_activations;
    for (size_t rank = 0; rank < peaks.size(); ++rank) EXPECT_LE(peaks[rank], limits[rank]);
    if (!is_uneven(request)) continue;
    ++uneven;
    better += choice.makespan * (1 + kNear) < family ? 1 : 0;
  }
  EXPECT_GE(2 * better, uneven);
}

TEST(ChooseSchedule, DependsOnTheRequestAlone) {
  RandomRequests random(3);
  for (int round = 0; round < 4; ++round) {
    AutoRequest request = random.next(1 + round % 2, 5, 9);
    request.effort = 500'000;
    const AutoChoice once = choose_schedule(request), again = choose_schedule(request);
    EXPECT_EQ(once.schedule, again.schedule);
    EXPECT_EQ(once.origin, again.origin);
    EXPECT_EQ(once.lower_bound, again.lower_bound);
  }
}

// m micro-batches one after the other, each waiting for the release of the one before: on rank 0
// F, hop, F and I on rank 1, hop, I and W, so m * (1 + 1/2 + 2 + 1/2 + 2) = 24.
TEST(ChooseSchedule, WithRoomForOneActivationWaitsForEveryRoundTrip) {
  AutoRequest request{.pipeline = 2, .micro_batches = 4};
  request.costs.hop = 0.5;
  request.memory_limit = std::vector<double>{1};
  const AutoChoice choice = choose_schedule(request);
  EXPECT_DOUBLE_EQ(choice.makespan, 24);
  EXPECT_DOUBLE_EQ(choice.lower_bound, 24);
  EXPECT_DOUBLE_EQ(choice.gap(), 0);
}

// Rank 1 does all the work that counts: it cannot start before rank 0's forward of 1 and then has
// 6 * (2 + 2 + 2) to do, the last of which may be a weight gradient.
TEST(ChooseSchedule, KeepsTheSlowestRankBusyFromItsFirstOpToItsLast) {
  AutoRequest request{.pipeline = 2, .micro_batches = 6};
  request.costs.stages = {{1, 1, 1}, {2, 2, 2}};
  const AutoChoice choice = choose_schedule(request);
  EXPECT_DOUBLE_EQ(choice.makespan, 37);
  EXPECT_DOUBLE_EQ(choice.lower_bound, 37);
}

TEST(ChooseSchedule, SaysWhatItConsideredAndWhyNot) {
  AutoRequest request{.pipeline = 4, .micro_batches = 8};
  request.memory_limit = std::vector<double>{4};
  const AutoChoice choice = choose_schedule(request);
  std::map<std::string, const Considered*> by_name;
  for (const Considered& one : choice.considered) by_name[one.name()] = &one;
  ASSERT_TRUE(by_name.count("zb-h1"));
  EXPECT_DOUBLE_EQ(by_name["zb-h1"]->makespan.value_or(0), 27);  // m*3 + (p-1)*(1+1-1)
  ASSERT_TRUE(by_name.count("gpipe"));
  EXPECT_THAT(by_name["gpipe"]->why_not, HasSubstr("8 chunk activations"));
  EXPECT_THAT(by_name["zb-v"]->why_not, HasSubstr("chunks must be 2"));
}

TEST(ChooseSchedule, RefusesWhatNoScheduleCanDo) {
  AutoRequest request{.pipeline = 2, .micro_batches = 4};
  request.memory_limit = std::vector<double>{0};
  EXPECT_THAT(refusal(request), HasSubstr("rank 0 may hold 0, but a micro-batch needs 1 there"));
  request.chunks = 3;
  request.memory_limit = std::vector<double>{3, 2};
  EXPECT_THAT(refusal(request), HasSubstr("rank 1 may hold 2, but a micro-batch needs 3 there"));
  request.memory_limit = std::vector<double>{3, 3, 3};
  EXPECT_THAT(refusal(request), HasSubstr("one for each of 2 ranks, found 3"));
  request.memory_limit = std::nullopt;
  request.costs.stages.resize(4);
  EXPECT_THAT(refusal(request), HasSubstr("costs of 4 stages"));
  EXPECT_THAT(refusal({.pipeline = 0}), HasSubstr("pipeline must be at least 1"));
  EXPECT_THAT(refusal({.micro_batches = 0}), HasSubstr("micro-batches must be at least 1"));
}

TEST(ChooseSchedule, IsWhatMakeScheduleCallsAuto) {
  ScheduleRequest request{.name = "auto", .pipeline = 3, .micro_batches = 5};
  request.costs.stages = {{1, 2, 1}, {2, 1, 1}, {1, 1, 2}};
  AutoRequest same{.pipeline = 3, .micro_batches = 5, .costs = request.costs};
  EXPECT_EQ(make_schedule(request), choose_schedule(same).schedule);
  request.group = 3;
  EXPECT_THROW(make_schedule(request), Error);
}

// Stage 0 holds 4 until its I and 1 until its W, stage 1 holds 1: within 5 and 1, rank 0 can take
// the second micro-batch once the first has done its I (1 + 4), within 4 and 1 only after its W. With
// every op 1 long that is F F I | I W and then, on rank 0, F .. I W again: the second forward starts
// at 4 or at 5, and its I three later.
TEST(ChooseSchedule, CountsWhatStagesHoldWhereThatIsKnown) {
  AutoRequest request{.pipeline = 2, .micro_batches = 2};
  request.costs.memory = {{4, 1}, {1, 1}};
  request.memory_limit = std::vector<double>{5, 1};
  EXPECT_DOUBLE_EQ(choose_schedule(request).makespan, 9);
  request.memory_limit = std::vector<double>{4, 1};
  const AutoChoice tight = choose_schedule(request);
  EXPECT_DOUBLE_EQ(tight.makespan, 10);
  EXPECT_DOUBLE_EQ(tight.lower_bound, 10);
  request.memory_limit = std::vector<double>{3.9, 1};
  EXPECT_THAT(refusal(request), HasSubstr("rank 0 may hold 3.9, but a micro-batch needs 4 there"));
}

TEST(ChooseSchedule, RunsTheSmallestShapes) {
  for (int p = 1; p <= 3; ++p) {
    for (int m = 1; m <= 3; ++m) {
      for (int v = 1; v <= 3; ++v) {
        AutoRequest request{.pipeline = p, .micro_batches = m, .chunks = v, .effort = 100'000};
        request.memory_limit = std::vector<double>{1.0 * v};
        const AutoChoice choice = choose_schedule(request);
        EXPECT_TRUE(check_schedule(choice.schedule).legal);
        // A rank does its own work, and the last stage waits for all the others' first forward.
        EXPECT_GE(choice.lower_bound, 3.0 * m * v + (p - 1));
      }
    }
  }
}

}  // namespace
}  // namespace trireme
