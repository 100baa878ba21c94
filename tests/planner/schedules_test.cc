#include "planner/schedules/schedules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

std::string row(const std::vector<Op>& program) {
  std::string text;
  for (const Op& op : program) text += (text.empty() ? "" : " ") + to_string(op);
  return text;
}

std::string refusal(const ScheduleRequest& request, ErrorKind kind = ErrorKind::bad_input) {
  try {
    make_schedule(request);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "not refused";
}

double makespan(const ScheduleRequest& request) {
  return makespan_of(make_schedule(request), request.costs);
}

Costs costs(double forward, double input, double weight, double hop = 0) {
  Costs result;
  result.stages = {{forward, input, weight}};
  result.hop = hop;
  return result;
}

TEST(Schedules, NaiveRunsOneMicroBatchAtATime) {
  EXPECT_EQ(row(make_schedule({.name = "naive", .pipeline = 2, .micro_batches = 2}).ranks[1]),
            "1F0 1B0 1F1 1B1");
}

TEST(Schedules, GpipeRunsAllForwardsFirst) {
  EXPECT_EQ(row(make_schedule({.name = "gpipe", .pipeline = 2, .micro_batches = 3}).ranks[0]),
            "0F0 0F1 0F2 0B0 0B1 0B2");
}

TEST(Schedules, OneForwardOneBackwardWarmsUpByDistanceFromTheEnd) {
  const Schedule schedule = make_schedule({.name = "1f1b", .pipeline = 3, .micro_batches = 4});
  EXPECT_EQ(row(schedule.ranks[0]), "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3");
  EXPECT_EQ(row(schedule.ranks[1]), "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3");
  EXPECT_EQ(row(schedule.ranks[2]), "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3");
}

// Worked by hand: p=2, m=4, v=2, g=2; rank 0 warms up with 2*1 + 1*2 = 4 forwards, rank 1 with 2.
TEST(Schedules, InterleavedVisitsChunksGroupByGroup) {
  const Schedule schedule = make_schedule(
      {.name = "interleaved", .pipeline = 2, .micro_batches = 4, .chunks = 2, .group = 2});
  EXPECT_EQ(row(schedule.ranks[0]),
            "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3");
  EXPECT_EQ(row(schedule.ranks[1]),
            "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3");
}

TEST(Schedules, InterleavedWithOneChunkWarmsUpTwiceTheDistance) {
  const Schedule schedule =
      make_schedule({.name = "interleaved", .pipeline = 3, .micro_batches = 6});
  EXPECT_EQ(row(schedule.ranks[0]), "0F0 0F1 0F2 0F3 0F4 0B0 0F5 0B1 0B2 0B3 0B4 0B5");
}

TEST(Schedules, EverySmallRequestIsLegal) {
  for (int p = 1; p <= 16; ++p) {
    for (int m = 1; m <= 64; ++m) {
      for (const char* name : {"naive", "gpipe", "1f1b"}) {
        const Verdict verdict =
            check_schedule(make_schedule({.name = name, .pipeline = p, .micro_batches = m}));
        ASSERT_TRUE(verdict.legal) << name << " p" << p << " m" << m << ": " << verdict.reason;
      }
    }
  }
}

TEST(Schedules, EverySmallInterleavedRequestIsLegal) {
  for (int p = 1; p <= 16; ++p) {
    for (int m = 1; m <= 64; ++m) {
      for (int v = 1; v <= 8; ++v) {
        const std::vector<int> groups = legal_groups(p, m);
        for (const int g : {groups.front(), groups[groups.size() / 2], groups.back()}) {
          const Verdict verdict = check_schedule(interleaved_schedule(p, m, v, g));
          ASSERT_TRUE(verdict.legal)
              << "p" << p << " m" << m << " v" << v << " g" << g << ": " << verdict.reason;
        }
      }
    }
  }
}

TEST(Schedules, EveryLegalGroupOfASmallPipelineIsLegal) {
  for (int p = 1; p <= 5; ++p) {
    for (int m = 1; m <= 24; ++m) {
      for (const int g : legal_groups(p, m)) {
        for (int v = 1; v <= 4; ++v) {
          const Verdict verdict = check_schedule(interleaved_schedule(p, m, v, g));
          ASSERT_TRUE(verdict.legal)
              << "p" << p << " m" << m << " v" << v << " g" << g << ": " << verdict.reason;
        }
      }
    }
  }
}

// p <= g <= m and (m mod g = 0 or m mod g >= p); fewer micro-batches than ranks form one group.
TEST(Schedules, LegalGroupsFollowTheRule) {
  EXPECT_EQ(legal_groups(4, 8), (std::vector<int>{4, 8}));
  EXPECT_EQ(legal_groups(4, 9), (std::vector<int>{5, 9}));
  EXPECT_EQ(legal_groups(2, 7), (std::vector<int>{4, 5, 7}));
  EXPECT_EQ(legal_groups(4, 4), (std::vector<int>{4}));
  EXPECT_EQ(legal_groups(4, 3), (std::vector<int>{3}));
  EXPECT_EQ(legal_groups(1, 3), (std::vector<int>{1, 2, 3}));
}

TEST(Schedules, TheChosenGroupIsTheSmallestOfLeastMakespan) {
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

TEST(Schedules, AGroupOutsideTheRuleIsRefusedInPlainWords) {
  ScheduleRequest request{
      .name = "interleaved", .pipeline = 4, .micro_batches = 9, .chunks = 2, .group = 4};
  EXPECT_THAT(refusal(request), HasSubstr("9 micro-batches leave a last group of 1"));
  request.group = 3;
  EXPECT_THAT(refusal(request), HasSubstr("at least as long as the pipeline"));
  request.group = 10;
  EXPECT_THAT(refusal(request), HasSubstr("there are only 9 micro-batches"));
  request.micro_batches = 3;
  request.group = 3;
  EXPECT_THAT(refusal(request), HasSubstr("always form one group"));
}

TEST(Schedules, WhatCannotBeIsRefused) {
  EXPECT_THAT(refusal({.name = "1f1b", .chunks = 2}), HasSubstr("chunks must be 1, found 2"));
  EXPECT_THAT(refusal({.name = "gpipe", .group = 2}),
              HasSubstr("these take a group: interleaved, interleaved-zb, forward-only"));
  EXPECT_THAT(refusal({.name = "naive", .pipeline = 0}), HasSubstr("pipeline must be at least 1"));
  EXPECT_THAT(refusal({.name = "1f1p"}), HasSubstr("did you mean \"1f1b\"?"));
  EXPECT_THAT(refusal({.name = "auto"}, ErrorKind::unavailable), HasSubstr("not built"));
}

// With every legal request the bound holds, and 1F1B without latency reaches it.
TEST(Schedules, NoScheduleBeatsTheMakespanBound) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 12; ++m) {
      for (const double hop : {0.0, 0.5}) {
        Costs uneven;
        uneven.hop = hop;
        uneven.stages.clear();
        for (int s = 0; s < 2 * p; ++s) {
          uneven.stages.push_back({1.0 + 0.3 * (s % 3), 1.0 + 0.2 * (s % 2), 0.5});
        }
        const double bound = makespan_bound(loop_placement(p, 2), p, m, uneven);
        EXPECT_GE(makespan({.name = "interleaved",
                            .pipeline = p,
                            .micro_batches = m,
                            .chunks = 2,
                            .costs = uneven}) *
                      (1 + 1e-12),
                  bound);
        const Costs even = costs(1, 1, 1, hop);
        const double even_bound = makespan_bound(loop_placement(p, 1), p, m, even);
        for (const char* name : {"naive", "gpipe", "1f1b"}) {
          const double time =
              makespan({.name = name, .pipeline = p, .micro_batches = m, .costs = even});
          EXPECT_GE(time * (1 + 1e-12), even_bound);
          if (name != std::string("naive") && hop == 0) {
            EXPECT_NEAR(time, even_bound, 1e-9);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme
