#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

Costs costs(double forward, double input, double weight, double hop = 0) {
  Costs result;
  result.stages = {{forward, input, weight}};
  result.hop = hop;
  return result;
}

double makespan(const ScheduleRequest& request) {
  return makespan_of(make_schedule(request), request.costs);
}

// Forwards before the first backward, and the one that is woven in just before it.
std::vector<int> in_flight(const Schedule& schedule) {
  std::vector<int> result;
  for (const std::vector<Op>& program : schedule.ranks) {
    const auto first = std::find_if(program.begin(), program.end(),
                                    [](const Op& op) { return op.kind != OpKind::forward; });
    result.push_back(static_cast<int>(first - program.begin()));
  }
  return result;
}

TEST(ScheduleChoice, TheChosenGroupIsTheSmallestOfLeastMakespan) {
  for (int p = 2; p <= 5; ++p) {
    for (int m = 1; m <= 17; ++m) {
      for (const double hop : {0.0, 0.25, 1.5}) {
        ScheduleRequest request{.name = "interleaved",
                                .pipeline = p,
                                .micro_batches = m,
                                .chunks = 3,
                                .costs = costs(1, 1.25, 0.75, hop)};
        Schedule expected;
        double least = 0;
        for (const int g : legal_groups(p, m)) {
          Schedule schedule = interleaved_schedule(p, m, 3, g);
          const double time = simulate(schedule, request.costs).makespan;
          if (expected.ranks.empty() || time < least - 1e-9) {
            least = time;
            expected = schedule;
          }
        }
        EXPECT_EQ(make_schedule(request), expected) << "p" << p << " m" << m << " hop " << hop;
      }
    }
  }
}

// PyTorch's rule: R = max(1, m div p) rounds of m/R micro-batches, if R divides m.
TEST(ScheduleChoice, InterleavedZbTakesTheGroupOfEvenRounds) {
  const auto chosen = [](int m) {
    return make_schedule(
        {.name = "interleaved-zb", .pipeline = 4, .micro_batches = m, .chunks = 3});
  };
  EXPECT_EQ(chosen(8), interleaved_zb_schedule(4, 8, 3, 4));
  EXPECT_EQ(chosen(10), interleaved_zb_schedule(4, 10, 3, 5));
  EXPECT_EQ(chosen(7), interleaved_zb_schedule(4, 7, 3, 7));
  EXPECT_EQ(chosen(3), interleaved_zb_schedule(4, 3, 3, 3));
  EXPECT_TRUE(check_schedule(chosen(9)).legal);  // 2 rounds do not divide 9: groups of 5 or 9
}

// With F+B = 3 and c = 1 a hop and back takes 5, two beats of 3; without latency one. With c = 3.1
// three hops and back take 3 * 9.2 + 3 = 30.6, 11 beats, two take 21.4 and one 12.2: 32
// micro-batches are too few to gain from more.
TEST(ScheduleChoice, WarmUpCoversTheRoundTripAndNoMore) {
  ScheduleRequest request{.name = "1f1b",
                          .pipeline = 4,
                          .micro_batches = 32,
                          .costs = costs(1, 1, 1, 1),
                          .latency_aware = true};
  EXPECT_EQ(in_flight(make_schedule(request)), (std::vector<int>{7, 5, 3, 1}));
  request.costs.hop = 3.1;
  EXPECT_EQ(in_flight(make_schedule(request)), (std::vector<int>{11, 8, 5, 1}));
  request.costs.hop = 0;
  EXPECT_EQ(in_flight(make_schedule(request)), (std::vector<int>{4, 3, 2, 1}));
}

// Once the round trip is covered only the fill and the drain pay for latency.
TEST(ScheduleChoice, WarmUpForLatencyLeavesOnlyFillAndDrain) {
  for (int p = 2; p <= 8; ++p) {
    for (int m = 1; m <= 40; ++m) {
      for (const double hop : {0.0, 0.3, 1.0, 4.0, 20.0}) {
        const double time = makespan({.name = "1f1b",
                                      .pipeline = p,
                                      .micro_batches = m,
                                      .costs = costs(1, 1.5, 0.5, hop),
                                      .latency_aware = true});
        EXPECT_NEAR(time, (m + p - 1) * 3 + 2 * (p - 1) * hop, 1e-9)
            << "p" << p << " m" << m << " hop " << hop;
      }
    }
  }
}

TEST(ScheduleChoice, LatencyAwareIsLegalAndNeverSlower) {
  for (const char* name : {"1f1b", "eager-1f1b", "interleaved", "zb-h1", "interleaved-zb", "zb-h2",
                           "zb-v", "v-half", "v-min", "dualpipe-v", "pipedream"}) {
    for (int p = 1; p <= 7; ++p) {
      for (int m = 1; m <= 21; m += 2) {
        for (const double hop : {0.0, 0.4, 1.7, 9.0}) {
          ScheduleRequest request{.name = name,
                                  .pipeline = p,
                                  .micro_batches = m,
                                  .chunks = fixed_chunks(name).value_or(2),
                                  .costs = costs(1, 0.75, 1.25, hop)};
          if (why_not(request)) continue;
          const double plain = makespan(request);
          request.latency_aware = true;
          const Schedule schedule = make_schedule(request);
          const Verdict verdict = check_schedule(schedule);
          ASSERT_TRUE(verdict.legal) << name << " p" << p << " m" << m << ": " << verdict.reason;
          EXPECT_LE(makespan_of(schedule, request.costs), plain * (1 + 1e-9));
        }
      }
    }
  }
}

TEST(ScheduleChoice, LatencyAwareGainsWithEverySplitOrFullBackward) {
  for (const char* name : {"1f1b", "eager-1f1b", "interleaved", "zb-h1", "interleaved-zb", "zb-v",
                           "v-half", "v-min", "dualpipe-v", "pipedream"}) {
    ScheduleRequest request{.name = name,
                            .pipeline = 4,
                            .micro_batches = 48,
                            .chunks = fixed_chunks(name).value_or(2),
                            .costs = costs(1, 1, 1, 6)};
    const double plain = makespan(request);
    request.latency_aware = true;
    EXPECT_LT(makespan(request), 0.95 * plain) << name;
  }
}

// A beat of dualpipe-v is F+B on each arm, 6; a hop and back of up to one more beat needs one more
// micro-batch for each of the p-1 hops, of up to two beats two. Then a further micro-batch takes no
// longer than without hops, and all p-1 hops' worth is held on every rank, for both arms.
TEST(ScheduleChoice, PairsThatMeetLaterHideEveryHop) {
  for (int p = 2; p <= 6; ++p) {
    for (const double hop : {0.3, 2.5, 3.0, 3.1, 6.0}) {
      ScheduleRequest request{.name = "dualpipe-v",
                              .pipeline = p,
                              .chunks = 2,
                              .costs = costs(1, 1, 1, hop),
                              .latency_aware = true};
      const int beats = hop <= 3 ? 1 : 2;
      const auto time = [&](int m) {
        request.micro_batches = m;
        return makespan(request);
      };
      const int enough = 40 * p;
      EXPECT_NEAR(time(enough + 1) - time(enough), 6, 1e-9) << "p" << p << " hop " << hop;
      const Schedule schedule = make_schedule(request);
      EXPECT_EQ(simulate(schedule, {}).peak_activations.front(),
                simulate(dualpipe_v_schedule(p, enough), {}).peak_activations.front() +
                    2 * beats * (p - 1))
          << "p" << p << " hop " << hop;
    }
  }
}

TEST(ScheduleChoice, PairsMeetLaterOnlyWhereMemoryAllows) {
  ScheduleRequest request{.name = "dualpipe-v",
                          .pipeline = 4,
                          .micro_batches = 32,
                          .costs = costs(1, 1, 1, 1),
                          .latency_aware = true};
  std::vector<double> times;
  for (int limit = 9; limit <= 16; ++limit) {
    request.memory_limit = std::vector<int>{limit};
    const Schedule schedule = make_schedule(request);
    ASSERT_TRUE(check_schedule(schedule).legal);
    for (const int peak : simulate(schedule, {}).peak_activations) EXPECT_LE(peak, limit);
    times.push_back(makespan_of(schedule, request.costs));
  }
  EXPECT_TRUE(std::is_sorted(times.rbegin(), times.rend()));
  EXPECT_LT(times.back(), 0.9 * times.front());
}

TEST(ScheduleChoice, AGivenWarmUpIsDeeperOnEveryRank) {
  const Schedule schedule =
      make_schedule({.name = "1f1b", .pipeline = 3, .micro_batches = 6, .warm_up = 1});
  EXPECT_EQ(in_flight(schedule), (std::vector<int>{4, 3, 2}));
  for (const char* name :
       {"1f1b", "eager-1f1b", "interleaved", "zb-h1", "interleaved-zb", "zb-h2"}) {
    for (int p = 1; p <= 5; ++p) {
      for (int m = 1; m <= 12; ++m) {
        for (int deeper = 0; deeper <= 5; ++deeper) {
          const Verdict verdict =
              check_schedule(make_schedule({.name = name,
                                            .pipeline = p,
                                            .micro_batches = m,
                                            .chunks = fixed_chunks(name).value_or(3),
                                            .warm_up = deeper}));
          ASSERT_TRUE(verdict.legal) << name << " p" << p << " m" << m << ": " << verdict.reason;
        }
      }
    }
  }
}

TEST(ScheduleChoice, AMemoryLimitIsKeptOrRefusedByRankAndFigures) {
  ScheduleRequest request{
      .name = "1f1b", .pipeline = 4, .micro_batches = 8, .memory_limit = std::vector<int>{3}};
  try {
    make_schedule(request);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_STREQ(
        error.what(),
        "1f1b with 8 micro-batches: rank 0 of 4 holds 4 chunk activations, above the limit "
        "of 3");
  }
  request.memory_limit = std::vector<int>{4, 3, 2, 1};
  EXPECT_EQ(in_flight(make_schedule(request)), (std::vector<int>{4, 3, 2, 1}));
}

// The warm-up may be chosen, so any limit of one or more can be kept, on each rank its own.
TEST(ScheduleChoice, LatencyAwareWarmUpIsCappedByMemory) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 12; ++m) {
      for (int limit = 1; limit <= 8; ++limit) {
        std::vector<int> limits;
        limits.reserve(static_cast<size_t>(p));
        for (int r = 0; r < p; ++r) limits.push_back(1 + (limit + 3 * r) % 8);
        const Schedule schedule = make_schedule({.name = "1f1b",
                                                 .pipeline = p,
                                                 .micro_batches = m,
                                                 .costs = costs(1, 1, 1, 2),
                                                 .latency_aware = true,
                                                 .memory_limit = limits});
        ASSERT_TRUE(check_schedule(schedule).legal);
        const std::vector<int> peaks = simulate(schedule, {}).peak_activations;
        for (size_t r = 0; r < peaks.size(); ++r) EXPECT_LE(peaks[r], limits[r]);
      }
    }
  }
}

// Rank 0 of p = 4, v = 2 holds 2*3 + g + 1: the legal groups 7, 8, 9 and 13 of m = 13 hold 14, 15,
// 16 and 20. With a long hop the longest is the fastest.
TEST(ScheduleChoice, GroupsAreChosenWithinTheMemoryLimit) {
  ScheduleRequest request{.name = "interleaved",
                          .pipeline = 4,
                          .micro_batches = 13,
                          .chunks = 2,
                          .costs = costs(1, 1, 1, 3)};
  EXPECT_EQ(make_schedule(request), interleaved_schedule(4, 13, 2, 13));
  for (const int limit : {14, 15, 16, 19}) {
    double least = 1e30;
    for (const int group : {7, 8, 9}) {
      const double time = makespan_of(interleaved_schedule(4, 13, 2, group), request.costs);
      if (6 + group + 1 <= limit) least = std::min(least, time);
    }
    request.memory_limit = std::vector<int>{limit};
    const Schedule chosen = make_schedule(request);
    EXPECT_EQ(makespan_of(chosen, request.costs), least) << limit;
    EXPECT_LE(simulate(chosen, {}).peak_activations[0], limit);
  }
  request.memory_limit = std::vector<int>{13};
  EXPECT_THROW(make_schedule(request), Error);
}

}  // namespace
}  // namespace trireme
