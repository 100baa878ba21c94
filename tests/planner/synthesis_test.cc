#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "planner/synthesis/automatic.h"
#include "planner/synthesis/lower_bound.h"
#include "planner/synthesis/synthesis.h"
#include "tests/planner/synthesis_instances.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

constexpr double kNear = 1e-9;

// Every order of the ops of these stages that keeps a micro-batch's ops of a stage in order and the
// limit: all of them, micro-batches in any order.
std::vector<std::vector<Op>> all_programs(const std::vector<int>& stages, int micro_batches,
                                          int limit) {
  std::vector<std::vector<Op>> found;
  std::vector<Op> program;
  std::map<std::pair<int, int>, int> done;  // of each stage and micro-batch: F, I, W
  int held = 0;
  const size_t all = 3 * stages.size() * static_cast<size_t>(micro_batches);
  const OpKind kinds[] = {OpKind::forward, OpKind::backward_input, OpKind::backward_weight};
  const std::function<void()> extend = [&] {
    if (program.size() == all) found.push_back(program);
    for (const int stage : stages) {
      for (int i = 0; i < micro_batches; ++i) {
        int& next = done[{stage, i}];
        if (next == 3 || (next == 0 && held == limit)) continue;
        const int change = next == 0 ? 1 : next == 2 ? -1 : 0;
        program.push_back({kinds[next], false, stage, i});
        ++next;
        held += change;
        extend();
        held -= change;
        --next;
        program.pop_back();
      }
    }
  };
  extend();
  return found;
}

// Whether the micro-batches enter the pipeline in order: to rename them makes no difference, so one
// order on the first rank stands for all.
bool enters_in_order(const std::vector<Op>& program) {
  int last = -1;
  return std::all_of(program.begin(), program.end(), [&](const Op& op) {
    return op.stage != 0 || op.kind != OpKind::forward || op.micro_batch == ++last;
  });
}

// The least makespan over all programs of all ranks.
double least_makespan(const std::vector<StagePlace>& places, const AutoRequest& request) {
  const std::vector<double>& limit = *request.memory_limit;
  std::vector<std::vector<std::vector<Op>>> programs;
  for (int rank = 0; rank < request.pipeline; ++rank) {
    std::vector<int> stages;
    for (size_t stage = 0; stage < places.size(); ++stage) {
      if (places[stage].rank == rank) stages.push_back(static_cast<int>(stage));
    }
    programs.push_back(all_programs(stages, request.micro_batches,
                                    static_cast<int>(limit[static_cast<size_t>(rank)])));
  }
  double least = std::numeric_limits<double>::infinity();
  Schedule schedule;
  schedule.micro_batches = request.micro_batches;
  schedule.stages = places;
  const std::function<void()> extend = [&] {
    const size_t rank = schedule.ranks.size();
    if (rank == programs.size()) {
      if (!check_schedule(schedule).legal) return;
      least = std::min(least, makespan_of(schedule, request.costs));
      return;
    }
    for (const std::vector<Op>& program : programs[rank]) {
      if (rank == 0 && !enters_in_order(program)) continue;
      schedule.ranks.push_back(program);
      extend();
      schedule.ranks.pop_back();
    }
  };
  extend();
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
  struct Size {
    int pipeline, micro_batches, chunks;
  };
  RandomRequests random(7);
  for (const Size& size : {Size{2, 2, 1}, Size{3, 2, 1}, Size{2, 1, 2}, Size{3, 1, 2}}) {
    for (int round = 0; round < 6; ++round) {
      AutoRequest request =
          random.of_size(size.pipeline, size.micro_batches, size.chunks, round > 0);
      request.memory_limit = std::vector<double>();
      for (int rank = 0; rank < size.pipeline; ++rank) {
        request.memory_limit->push_back(size.chunks * random.between(1, size.micro_batches));
      }
      double least = least_makespan(loop_placement(size.pipeline, size.chunks), request);
      if (size.chunks == 2) {
        least = std::min(least, least_makespan(v_placement(size.pipeline, 2), request));
      }
      const AutoChoice choice = choose_schedule(request);
      EXPECT_NEAR(choice.makespan, least, kNear * least) << "round " << round;
      EXPECT_NEAR(choice.lower_bound, least, kNear * least) << "round " << round;
    }
  }
}

// No bound of a flow may exceed what some schedule of it reaches, and an exact search must confirm
// what the search without one found or improve on it.
TEST(ChooseSchedule, ItsBoundStaysBelowTheProvenBest) {
  RandomRequests random(13);
  int proven = 0, tight = 0;
  for (int round = 0; round < 40; ++round) {
    const int chunks = 1 + round % 2, ranks = 2 + round % 3 / 2;
    const AutoRequest request = random.of_size(ranks, chunks == 1 ? 4 : 3, chunks, true);
    const std::vector<double> limit(static_cast<size_t>(ranks), random.between(chunks, 2 * ranks));
    const auto places = round % 4 == 1 ? v_placement(ranks, 2) : loop_placement(ranks, chunks);
    const Flow flow = make_flow(places, ranks, request.micro_batches, request.costs, limit);
    const Windows windows = windows_of(flow);
    const double bound = lower_bound(flow, windows);
    const Found found = synthesize(flow, windows, {}, bound, 5'000'000, 1);
    EXPECT_LE(bound, found.best.makespan * (1 + kNear)) << "round " << round;
    proven += found.optimal ? 1 : 0;
    tight += bound >= found.best.makespan * (1 - kNear) ? 1 : 0;
  }
  EXPECT_GE(proven, 35);
  EXPECT_GE(tight, 10);
}

TEST(ChooseSchedule, IsNeverWorseThanTheFamilyAndKeepsTheLimitOnEveryRank) {
  RandomRequests random(1);
  int uneven = 0, better = 0;
  for (int round = 0; round < 200; ++round) {
    AutoRequest request = random.next(1 + round % 2, 6, 12);
    request.effort = 500'000;
    if (round % 5 == 0 && request.memory_limit) {  // another limit on every rank
      std::vector<double> limits;
      limits.reserve(static_cast<size_t>(request.pipeline));
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

// Stage 0 holds 4 until the end of its I and 1 until that of its W. The first micro-batch's I ends
// on rank 0 at 4: F and then, on rank 1, F and I, and I. Within 5 the second can then be taken (1 +
// 4 held), within 4 only after the W, at 5; its F, F, I, I and W take another 5.
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
