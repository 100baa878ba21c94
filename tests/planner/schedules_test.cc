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

std::string csv(const std::string& name, int pipeline, int micro_batches, int chunks) {
  return to_csv(make_schedule(
      {.name = name, .pipeline = pipeline, .micro_batches = micro_batches, .chunks = chunks}));
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

// DualPipe splits a few in its corners.
TEST(Schedules, SplitBackwardsAreKnownByName) {
  for (const std::string& name : built_schedules()) {
    const Schedule schedule = make_schedule(
        {.name = name, .pipeline = 4, .micro_batches = 32, .chunks = fixed_chunks(name)});
    int full = 0, split = 0;
    for (const std::vector<Op>& program : schedule.ranks) {
      for (const Op& op : program) {
        full += op.kind == OpKind::backward;
        split += op.kind == OpKind::backward_input;
      }
    }
    EXPECT_EQ(splits_backward(name), split > full) << name;
    if (name != "dualpipe-v") {
      EXPECT_TRUE(full == 0 || split == 0) << name;
    }
  }
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

// The generators whose list other systems agree on, against what those systems print: PyTorch's
// ScheduleLoopedBFS, ScheduleInterleavedZeroBubble (with one chunk: ZB-H1), ScheduleZBVZeroBubble
// and ScheduleDualPipeV, and zbv_greedy of the authors of V-Half and V-Min.
TEST(ScheduleLists, BreadthFirstRunsAllOfAChunkAtOnce) {
  EXPECT_EQ(csv("breadth-first", 2, 3, 2),
            "0F0,0F1,0F2,2F0,2F1,2F2,2B2,2B1,2B0,0B2,0B1,0B0\n"
            "1F0,1F1,1F2,3F0,3F1,3F2,3B2,3B1,3B0,1B2,1B1,1B0\n");
}

TEST(ScheduleLists, ZbH1IssuesOneWeightGradientLatePerRank) {
  EXPECT_EQ(csv("zb-h1", 3, 4, 1),
            "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\n"
            "1F0,1F1,1I0,1F2,1I1,1W0,1F3,1I2,1W1,1I3,1W2,1W3\n"
            "2F0,2I0,2F1,2I1,2F2,2I2,2W0,2F3,2I3,2W1,2W2,2W3\n");
}

TEST(ScheduleLists, InterleavedZbSplitsTheBackwardsOfAnInterleavedTable) {
  EXPECT_EQ(csv("interleaved-zb", 2, 4, 2),
            "0F0,0F1,2F0,2F1,2I0,2W0,0F2,2I1,2W1,0F3,0I0,0W0,2F2,0I1,0W1,2F3,2I2,2W2,2I3,"
            "2W3,0I2,0W2,0I3,0W3\n"
            "1F0,1F1,3F0,3I0,3F1,3I1,3W0,1F2,1I0,3W1,1F3,1I1,1W0,3F2,3I2,1W1,3F3,3I3,3W2,"
            "1I2,3W3,1I3,1W2,1W3\n");
}

TEST(ScheduleLists, ZbVTurnsRoundOnEveryRank) {
  EXPECT_EQ(csv("zb-v", 2, 4, 2),
            "0F0,0F1,0F2,3F0,3I0,3W0,3F1,3I1,3W1,0F3,0I0,0W0,3F2,3I2,3W2,0I1,0W1,3F3,3I3,"
            "3W3,0I2,0W2,0I3,0W3\n"
            "1F0,2F0,1F1,2F1,2I0,2W0,1F2,1I0,1W0,2F2,2I1,2W1,1F3,1I1,1W1,2F3,2I2,2W2,1I2,"
            "2I3,1I3,1W2,2W3,1W3\n");
}

TEST(ScheduleLists, ZbVWithFewMicroBatchesIsALongerOneStruckOut) {
  EXPECT_EQ(csv("zb-v", 3, 2, 2),
            "0F0,0F1,5F0,5I0,5W0,5F1,5I1,5W1,0I0,0W0,0I1,0W1\n"
            "1F0,1F1,4F0,4F1,4I0,4W0,4I1,4W1,1I0,1W0,1I1,1W1\n"
            "2F0,3F0,2F1,3F1,3I0,3W0,2I0,2W0,3I1,3W1,2I1,2W1\n");
}

TEST(ScheduleLists, DualPipeVOverlapsTheArmsOfTheV) {
  EXPECT_EQ(csv("dualpipe-v", 2, 5, 2),
            "0F0,0F1,0F2,3F0,3I0,3W0,3F1,(0F3;3B1)OVERLAP_F_B,(3F2;0B0)OVERLAP_F_B,"
            "(0F4;3B2)OVERLAP_F_B,(3F3;0B1)OVERLAP_F_B,3B3,(3F4;0B2)OVERLAP_F_B,3B4,0I3,"
            "0W3,0I4,0W4\n"
            "1F0,2F0,1F1,2F1,1F2,2B0,(2F2;1B0)OVERLAP_F_B,(1F3;2B1)OVERLAP_F_B,"
            "(2F3;1B1)OVERLAP_F_B,(1F4;2B2)OVERLAP_F_B,(2F4;1B2)OVERLAP_F_B,2B3,1B3,2I4,"
            "1I4,2W4,1W4\n");
}

TEST(ScheduleLists, VHalf) {
  EXPECT_EQ(csv("v-half", 3, 6, 2),
            "0F0,0F1,0F2,5F0,5I0,5W0,5F1,5I1,5W1,0I0,0W0,0F3,5F2,5I2,5W2,0I1,0W1,0F4,5F3,"
            "5I3,5W3,0I2,0W2,0F5,5F4,5I4,5W4,0I3,0W3,5F5,5I5,0I4,5W5,0W4,0I5,0W5\n"
            "1F0,1F1,4F0,4F1,4I0,4W0,1F2,1I0,4I1,4W1,4F2,1W0,1F3,1I1,4I2,4W2,4F3,1W1,1F4,"
            "1I2,4I3,4W3,4F4,1W2,1F5,1I3,4I4,4W4,4F5,1W3,1I4,4I5,4W5,1W4,1I5,1W5\n"
            "2F0,3F0,2F1,3F1,3I0,3W0,2I0,2W0,2F2,3F2,3I1,3W1,2I1,2W1,2F3,3F3,3I2,3W2,2I2,"
            "2W2,2F4,3F4,3I3,2I3,3W3,2F5,2W3,3F5,3I4,2I4,3W4,2W4,3I5,2I5,3W5,2W5\n");
}

TEST(ScheduleLists, VHalfOnAnEvenNumberOfRanksShiftsItsBackwards) {
  EXPECT_EQ(csv("v-half", 4, 8, 2),
            "0F0,0F1,0F2,0F3,0F4,7F0,7I0,7W0,7F1,7I1,7W1,7F2,0I0,7I2,7W2,7F3,0W0,0F5,0I1,"
            "7I3,7W3,7F4,0W1,0F6,0I2,7I4,7W4,7F5,0W2,0F7,0I3,7I5,7W5,7F6,7I6,7W6,0I4,0W3,"
            "0W4,7F7,7I7,0I5,7W7,0I6,0W5,0W6,0I7,0W7\n"
            "1F0,1F1,1F2,1F3,6F0,6F1,6I0,6W0,6F2,6I1,6W1,1I0,1W0,1F4,6F3,6I2,6W2,1I1,1W1,"
            "1F5,6F4,6I3,6W3,1I2,1W2,1F6,6F5,6I4,6W4,1I3,1F7,1W3,6F6,6I5,6W5,1I4,6I6,6W6,"
            "6F7,1W4,1I5,6I7,1I6,6W7,1W5,1W6,1I7,1W7\n"
            "2F0,2F1,2F2,5F0,5F1,5F2,5I0,5W0,2F3,5I1,2I0,5W1,2W0,5F3,2F4,2I1,5I2,5W2,5F4,"
            "2W1,2F5,2I2,5I3,5W3,5F5,2W2,2F6,2I3,5I4,5W4,5F6,2W3,2F7,2I4,5I5,5W5,5F7,5I6,"
            "2I5,5W6,2I6,5I7,5W7,2W4,2I7,2W5,2W6,2W7\n"
            "3F0,4F0,3F1,4F1,3F2,4F2,4I0,4W0,3I0,3W0,3F3,4F3,4I1,4W1,3I1,3W1,3F4,4F4,4I2,"
            "4W2,3I2,3W2,3F5,4F5,4I3,4W3,3I3,3F6,3W3,4F6,4I4,3I4,4W4,3F7,3W4,4F7,4I5,3I5,"
            "4I6,3I6,4W5,4W6,4I7,3I7,4W7,3W5,3W6,3W7\n");
}

TEST(ScheduleLists, VMin) {
  EXPECT_EQ(csv("v-min", 3, 6, 2),
            "0F0,0F1,0F2,5F0,5I0,5W0,5F1,0I0,5I1,5W1,0W0,5F2,0F3,0I1,5I2,5W2,0W1,5F3,0F4,"
            "0I2,5I3,5W3,0W2,5F4,0F5,0I3,5I4,5W4,0W3,5F5,5I5,0I4,5W5,0W4,0I5,0W5\n"
            "1F0,1F1,4F0,4F1,4I0,4W0,1I0,1F2,1W0,4I1,4F2,4W1,1I1,1F3,1W1,4I2,4F3,4W2,1I2,"
            "1F4,1W2,4I3,4F4,4W3,1I3,1F5,1W3,4I4,4F5,4W4,1I4,4I5,4W5,1W4,1I5,1W5\n"
            "2F0,3F0,2F1,3F1,3I0,2I0,3W0,2W0,2F2,3F2,3I1,2I1,3W1,2W1,2F3,3F3,3I2,2I2,3W2,"
            "2W2,2F4,3F4,3I3,2I3,3W3,2W3,2F5,3F5,3I4,2I4,3W4,2W4,3I5,2I5,3W5,2W5\n");
}

// By hand: rank 0 warms up with 2*2-1 = 3 forwards, rank 1 with 1; rank 1 issues a weight
// gradient from its third input gradient on.
TEST(ScheduleLists, ZbH2) {
  EXPECT_EQ(csv("zb-h2", 2, 4, 1),
            "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\n"
            "1F0,1I0,1F1,1I1,1F2,1I2,1W0,1F3,1I3,1W1,1W2,1W3\n");
}

TEST(ScheduleLists, PipeDreamRunsInTheOrderOfOneForwardOneBackward) {
  EXPECT_EQ(csv("pipedream", 3, 4, 1),
            "0F0,0F1,0F2,0B0,0F3,0B1,0B2,0B3\n"
            "1F0,1F1,1B0,1F2,1B1,1F3,1B2,1B3\n"
            "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3\n");
}

TEST(ScheduleLists, EagerWarmsUpWithTwiceTheDistance) {
  EXPECT_EQ(csv("eager-1f1b", 3, 4, 1),
            "0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3\n"
            "1F0,1F1,1F2,1B0,1F3,1B1,1B2,1B3\n"
            "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3\n");
}

TEST(ScheduleLists, ForwardOnlyIsTheForwardTableOfInterleaved) {
  EXPECT_EQ(csv("forward-only", 2, 4, 2),
            "0F0,0F1,2F0,2F1,0F2,0F3,2F2,2F3\n"
            "1F0,1F1,3F0,3F1,1F2,1F3,3F2,3F3\n");
}

TEST(Schedules, OnlyPipeDreamIsAsynchronous) {
  for (const std::string& name : built_schedules()) {
    EXPECT_EQ(make_schedule({.name = name, .micro_batches = 2}).asynchronous, name == "pipedream");
  }
}

// From fewer micro-batches than suffice to several times as many.
TEST(Schedules, VHalfAndVMinRepeatTheMiddleThatPlacingEveryOpWouldMake) {
  for (int p = 1; p <= 10; ++p) {
    for (int m = p; m <= 5 * p + 20; ++m) {
      ASSERT_EQ(v_half_schedule(p, m), v_half_schedule(p, m, true)) << p << " " << m;
      ASSERT_EQ(v_min_schedule(p, m), v_min_schedule(p, m, true)) << p << " " << m;
    }
  }
}

TEST(Schedules, ChunksFollowTheScheduleWhereNoneAreGiven) {
  for (const char* name : {"zb-v", "v-half", "v-min", "dualpipe-v"}) {
    const Schedule schedule = make_schedule({.name = name, .pipeline = 3, .micro_batches = 6});
    EXPECT_EQ(schedule.stages, v_placement(3, 2));
    EXPECT_EQ(schedule.stages[3], (StagePlace{2, 1}));
    EXPECT_EQ(schedule.stages[5], (StagePlace{0, 1}));
    EXPECT_EQ(fixed_chunks(name), 2);
  }
  for (const char* name : {"interleaved", "breadth-first", "interleaved-zb", "forward-only"}) {
    const Schedule schedule = make_schedule({.name = name, .pipeline = 3, .micro_batches = 6});
    EXPECT_EQ(schedule.stages, loop_placement(3, 1));
    EXPECT_EQ(fixed_chunks(name), std::nullopt);
  }
}

TEST(Schedules, EverySmallRequestIsLegal) {
  for (const std::string& name : built_schedules()) {
    if (name == "interleaved") continue;  // each group below
    for (int p = 1; p <= 16; ++p) {
      for (int m = 1; m <= 64; ++m) {
        for (int v = 1; v <= 8; ++v) {
          if (fixed_chunks(name).value_or(v) != v) continue;
          const ScheduleRequest request{
              .name = name, .pipeline = p, .micro_batches = m, .chunks = v};
          if (name == "dualpipe-v" && m < 2 * p) continue;
          const Schedule schedule = make_schedule(request);
          const Verdict verdict = check_schedule(schedule);
          ASSERT_TRUE(verdict.legal)
              << name << " p" << p << " m" << m << " v" << v << ": " << verdict.reason;
          ASSERT_EQ(schedule.name, name);
        }
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
          for (const Schedule& schedule :
               {interleaved_schedule(p, m, v, g), interleaved_zb_schedule(p, m, v, g),
                forward_only_schedule(p, m, v, g)}) {
            const Verdict verdict = check_schedule(schedule);
            ASSERT_TRUE(verdict.legal) << schedule.name << " p" << p << " m" << m << " v" << v
                                       << " g" << g << ": " << verdict.reason;
          }
        }
      }
    }
  }
}

TEST(Schedules, WhatIsAnotherWithOneChunkIsThatOneOpByOp) {
  int names = 0;
  for (const std::string& name : built_schedules()) {
    const std::optional<std::string> same = same_with_one_chunk(name);
    if (!same) continue;
    ++names;
    for (int p = 1; p <= 6; ++p) {
      for (int m = 1; m <= 24; ++m) {
        const Schedule other = make_schedule({.name = *same, .pipeline = p, .micro_batches = m});
        for (const std::optional<int> g : groups_to_try(name, p, m, 24)) {
          const Schedule schedule = make_schedule(
              {.name = name, .pipeline = p, .micro_batches = m, .chunks = 1, .group = g});
          EXPECT_EQ(schedule.stages, other.stages) << name << " p" << p << " m" << m;
          EXPECT_EQ(schedule.ranks, other.ranks) << name << " p" << p << " m" << m;
        }
      }
    }
  }
  EXPECT_EQ(names, 2);
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
  EXPECT_EQ(refusal({.name = "1f1b", .chunks = 2}),
            "1f1b gives each pipeline rank one stage, so chunks must be 1, found 2; these take any "
            "number: interleaved, breadth-first, interleaved-zb, forward-only");
  EXPECT_EQ(refusal({.name = "zb-v", .chunks = 3}),
            "zb-v gives each pipeline rank one stage on either arm of a V, so chunks must be 2, "
            "found 3");
  EXPECT_EQ(refusal({.name = "dualpipe-v", .pipeline = 4, .micro_batches = 7}),
            "dualpipe-v fills both arms of its V before pairs overlap, so 4 pipeline ranks need 8 "
            "micro-batches or more, found 7; zb-v takes any number");
  EXPECT_EQ(refusal({.name = "gpipe", .latency_aware = true}),
            "gpipe has no warm-up that could be deepened; these have: 1f1b, interleaved, "
            "eager-1f1b, zb-h1, interleaved-zb, zb-h2, pipedream");
  EXPECT_THAT(refusal({.name = "1f1b", .warm_up = -1}), HasSubstr("found -1"));
  EXPECT_THAT(refusal({.name = "1f1b", .warm_up = 1, .latency_aware = true}),
              HasSubstr("not both"));
  EXPECT_THAT(refusal({.name = "1f1b", .pipeline = 2, .memory_limit = std::vector<int>{1, 1, 1}}),
              HasSubstr("one for each of 2 ranks, found 3"));
  Costs three;
  three.stages.resize(3);
  EXPECT_THAT(refusal({.name = "1f1b", .pipeline = 2, .costs = three}),
              HasSubstr("found costs of 3 stages, expected one for all or 2"));
  EXPECT_THAT(refusal({.name = "gpipe", .group = 2}),
              HasSubstr("these take a group: interleaved, interleaved-zb, forward-only"));
  EXPECT_THAT(refusal({.name = "naive", .pipeline = 0}), HasSubstr("pipeline must be at least 1"));
  EXPECT_THAT(refusal({.name = "1f1p"}), HasSubstr("did you mean \"1f1b\"?"));
}

}  // namespace
}  // namespace trireme
