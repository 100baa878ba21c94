#include "planner/checker.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <random>

#include "planner/schedules/generators.h"
#include "tests/planner/dumb_simulator.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

Schedule two_ranks() {
  return one_forward_one_backward_schedule(2, 3);
}

TEST(Checker, AcceptsForwardOnly) {
  Schedule schedule = gpipe_schedule(3, 4);
  for (auto& program : schedule.ranks) program.resize(4);
  EXPECT_TRUE(check_schedule(schedule).legal);
}

TEST(Checker, NamesTheOpThatIsDoneTwice) {
  Schedule schedule = two_ranks();
  schedule.ranks[1].push_back({OpKind::backward, false, 1, 1});
  const Verdict verdict = check_schedule(schedule);
  EXPECT_FALSE(verdict.legal);
  EXPECT_THAT(verdict.reason, HasSubstr("rank 1, op 6: 1B1"));
  EXPECT_EQ(verdict.first_wrong, (OpPosition{1, 6}));
}

TEST(Checker, NamesWhatIsMissing) {
  Schedule schedule = two_ranks();
  schedule.ranks[0].pop_back();
  schedule.ranks[1].push_back({OpKind::forward, false, 1, 0});
  EXPECT_FALSE(check_schedule(schedule).legal);
  schedule = two_ranks();
  schedule.ranks[0].back() = {OpKind::backward_weight, false, 0, 2};
  EXPECT_EQ(check_schedule(schedule).reason,
            "stage 0 never does the input-gradient of micro-batch 2");
}

TEST(Checker, NamesTheOpOnAForeignRank) {
  Schedule schedule = two_ranks();
  std::swap(schedule.ranks[0][2], schedule.ranks[1][2]);
  const Verdict verdict = check_schedule(schedule);
  EXPECT_THAT(verdict.reason, HasSubstr("belongs on rank 1"));
  EXPECT_EQ(verdict.first_wrong, (OpPosition{0, 2}));
}

TEST(Checker, NamesABackwardBeforeItsForward) {
  Schedule schedule = naive_schedule(1, 2);
  std::swap(schedule.ranks[0][2], schedule.ranks[0][3]);
  const Verdict verdict = check_schedule(schedule);
  EXPECT_EQ(verdict.reason, "rank 0, op 2: 0B1 stands before 0F1, whose output it takes");
  EXPECT_EQ(verdict.first_wrong, (OpPosition{0, 2}));
}

// Rank 0 wants the backward of micro-batch 0 before it sends micro-batch 1; rank 1 wants
// micro-batch 1 first.
TEST(Checker, ShowsACycleOfWaitsAsAGrid) {
  Schedule schedule{"by hand", 2, loop_placement(2, 1), {}};
  using enum OpKind;
  schedule.ranks = {{{forward, false, 0, 0},
                     {backward, false, 0, 0},
                     {forward, false, 0, 1},
                     {backward, false, 0, 1}},
                    {{forward, false, 1, 0},
                     {forward, false, 1, 1},
                     {backward, false, 1, 0},
                     {backward, false, 1, 1}}};
  const Verdict verdict = check_schedule(schedule);
  EXPECT_FALSE(verdict.legal);
  EXPECT_THAT(verdict.reason, HasSubstr("2 ranks wait for each other"));
  EXPECT_THAT(verdict.grid, HasSubstr("!0B0!"));
  EXPECT_THAT(verdict.grid, HasSubstr("[1F1]"));
  EXPECT_THAT(verdict.grid, HasSubstr("waits for 0F1 of rank 0"));
  ASSERT_TRUE(verdict.first_wrong);
}

TEST(Checker, NamesAWeightGradientBeforeItsInputGradient) {
  using enum OpKind;
  Schedule schedule{"by hand", 1, {{0, 0}}, {{}}};
  schedule.ranks[0] = {
      {forward, false, 0, 0}, {backward_weight, false, 0, 0}, {backward_input, false, 0, 0}};
  EXPECT_EQ(check_schedule(schedule).reason,
            "rank 0, op 1: 0W0 stands before 0I0, whose output it takes");
  schedule.ranks[0] = {
      {forward, false, 0, 0}, {backward_input, true, 0, 0}, {backward_weight, false, 0, 0}};
  const Verdict verdict = check_schedule(schedule);
  EXPECT_EQ(verdict.reason, "rank 0, op 2: 0W0 overlaps 0I0, whose output it takes");
  EXPECT_EQ(verdict.first_wrong, (OpPosition{0, 2}));
}

TEST(Checker, NamesAPairOfWhichOneTakesTheOthersOutput) {
  Schedule schedule = naive_schedule(1, 1);
  schedule.ranks[0][0].overlaps_next = true;
  EXPECT_EQ(check_schedule(schedule).reason,
            "rank 0, op 0: 0B0 overlaps 0F0, whose output it takes");
}

// 1F1B holds p - r activations on rank r: 3, 2, 1.
TEST(Checker, NamesTheForwardThatExceedsTheMemoryLimit) {
  const Schedule schedule = one_forward_one_backward_schedule(3, 5);
  const auto under = [&](std::vector<int> limits) {
    return check_schedule(schedule, {.sends = SendMode::asynchronous,
                                     .buffer = std::nullopt,
                                     .memory_limit = std::move(limits)});
  };
  EXPECT_TRUE(under({3}).legal);
  EXPECT_TRUE(under({3, 2, 1}).legal);
  const Verdict verdict = under({3, 1, 1});
  EXPECT_EQ(verdict.reason,
            "rank 1, op 1: 1F1 is one chunk activation too many: rank 1 then holds 2, its limit is "
            "1");
  EXPECT_EQ(verdict.first_wrong, (OpPosition{1, 1}));
  EXPECT_EQ(under({2}).first_wrong, (OpPosition{0, 2}));
  EXPECT_EQ(under({1, 2}).reason,
            "found 2 memory limits, expected one, or one for each of 3 ranks");
}

// The limit that the checker accepts is the peak that the simulator reports.
TEST(Checker, TheLeastLimitIsThePeak) {
  std::mt19937 random(12);
  for (int trial = 0; trial < 300; ++trial) {
    Schedule schedule = random_legal_schedule(random);
    pair_at_random(schedule, 3, random);
    CheckOptions options;
    options.memory_limit = simulate(schedule, Costs{}).peak_activations;
    ASSERT_TRUE(check_schedule(schedule, options).legal);
    const auto most = std::max_element(options.memory_limit->begin(), options.memory_limit->end());
    --*most;
    ASSERT_FALSE(check_schedule(schedule, options).legal);
  }
}

std::string listed(const std::vector<Op>& ops) {
  std::vector<std::string> words;
  for (const Op& op : ops) words.push_back(to_string(op));
  return fmt::format("{}", fmt::join(words, " "));
}

TEST(Checker, ListsWhatIsMissing) {
  Schedule schedule = two_ranks();
  EXPECT_EQ(listed(missing_ops(schedule, 10)), "");
  schedule.ranks[0] = {{OpKind::forward, false, 0, 1}, {OpKind::backward, false, 0, 1}};
  EXPECT_EQ(listed(missing_ops(schedule, 10)), "0F0 0B0 0F2 0B2");
  EXPECT_EQ(listed(missing_ops(schedule, 3)), "0F0 0B0 0F2");
  // Of a split backward, the half that is not there; of one without any op, what others do.
  schedule.ranks[0] = {{OpKind::forward, false, 0, 0},
                       {OpKind::backward_input, false, 0, 0},
                       {OpKind::backward_weight, false, 0, 1}};
  EXPECT_EQ(listed(missing_ops(schedule, 10)), "0W0 0F1 0I1 0F2 0B2");
  for (auto& program : schedule.ranks) {
    std::erase_if(program, [](const Op& op) { return op.kind == OpKind::backward; });
  }
  EXPECT_EQ(listed(missing_ops(schedule, 4)), "0W0 0F1 0I1 0F2");
  // Without any backward it is inference.
  for (auto& program : schedule.ranks) {
    std::erase_if(program, [](const Op& op) { return op.kind != OpKind::forward; });
  }
  EXPECT_EQ(listed(missing_ops(schedule, 10)), "0F1 0F2");
  schedule.micro_batches = INT_MAX;
  EXPECT_EQ(missing_ops(schedule, 5).size(), 5U);
}

TEST(Checker, WhatIsMissingMakesItComplete) {
  std::mt19937 random(13);
  for (int trial = 0; trial < 300; ++trial) {
    Schedule schedule = random_legal_schedule(random);
    const size_t missing = random() % 4;
    for (size_t k = 0; k < missing; ++k) {
      auto& program = schedule.ranks[random() % schedule.ranks.size()];
      if (!program.empty()) program.erase(program.begin() + long(random() % program.size()));
    }
    const std::vector<Op> ops = missing_ops(schedule, SIZE_MAX);
    ASSERT_LE(ops.size(), 2 * missing);  // a lost B may be asked for as I and W
    for (const Op& op : ops) {
      schedule.ranks[size_t(schedule.stages[size_t(op.stage)].rank)].push_back(op);
    }
    ASSERT_EQ(listed(missing_ops(schedule, SIZE_MAX)), "");
  }
}

TEST(Checker, ClaimsOfHugeSizeAllocateNothing) {
  Schedule schedule = two_ranks();
  schedule.micro_batches = INT_MAX;
  EXPECT_FALSE(check_schedule(schedule).legal);
}

// Whether a well-formed program runs to its end, by trying every rank again and again.
bool runs_to_the_end(const Schedule& schedule) {
  const auto times = dumb_times(schedule, Costs{});
  return std::all_of(times.begin(), times.end(), [](const auto& row) {
    return std::all_of(row.begin(), row.end(), [](const OpTimes& t) { return t.end >= 0; });
  });
}

TEST(Checker, AgreesWithTryingOnShuffledPrograms) {
  std::mt19937 random(11);
  int legal = 0;
  constexpr int kTrials = 600;
  for (int trial = 0; trial < kTrials; ++trial) {
    Schedule schedule = random_legal_schedule(random);
    for (int swaps = trial % 3; swaps >= 0; --swaps) {
      auto& program = schedule.ranks[random() % schedule.ranks.size()];
      if (program.size() < 2) continue;
      const size_t at = random() % (program.size() - 1);
      std::swap(program[at], program[at + 1]);
    }
    const Verdict verdict = check_schedule(schedule);
    ASSERT_EQ(verdict.legal, runs_to_the_end(schedule)) << verdict.reason;
    ASSERT_EQ(verdict.legal, !verdict.first_wrong.has_value());
    legal += verdict.legal ? 1 : 0;
  }
  EXPECT_GT(legal, kTrials / 10);
  EXPECT_LT(legal, kTrials * 9 / 10);
}

TEST(Checker, SurvivesArbitraryPrograms) {
  std::mt19937 random(5);
  const auto number = [&](int low, int high) {
    if (random() % 50 == 0) return static_cast<int>(random());
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int trial = 0; trial < 20000; ++trial) {
    Schedule schedule;
    schedule.micro_batches = number(0, 3);
    for (int s = number(0, 3) & 3; s > 0; --s) {
      schedule.stages.push_back({number(0, 2), number(0, 1)});
    }
    for (int r = number(0, 3) & 3; r > 0; --r) {
      auto& program = schedule.ranks.emplace_back();
      for (int k = number(0, 7) & 7; k > 0; --k) {
        program.push_back(
            {static_cast<OpKind>(random() % 4), random() % 8 == 0, number(0, 2), number(0, 2)});
      }
    }
    const Verdict verdict = check_schedule(schedule);
    ASSERT_EQ(verdict.legal, verdict.reason.empty());
  }
  // Small legal programs with pairs marked at random: never a crash, never a hang.
  for (int trial = 0; trial < 5000; ++trial) {
    Schedule schedule = random_legal_schedule(random);
    for (auto& program : schedule.ranks) {
      for (Op& op : program) op.overlaps_next = random() % 4 == 0;
    }
    if (check_schedule(schedule).legal) simulate(schedule, Costs{});
  }
}

}  // namespace
}  // namespace trireme
