#include "planner/simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "tests/planner/dumb_simulator.h"

namespace trireme {
namespace {

Costs costs(double forward, double input, double weight, double hop = 0) {
  Costs result;
  result.stages = {{forward, input, weight}};
  result.hop = hop;
  return result;
}

TEST(Simulator, TwoRanksOneMicroBatchByHand) {
  // F0 [0,1], hop 0.5, F1 [1.5,2.5], B1 [2.5,4.5], hop, B0 [5,7].
  const Schedule schedule = naive_schedule(2, 1);
  const Simulation result = simulate(schedule, costs(1, 1, 1, 0.5));
  EXPECT_DOUBLE_EQ(result.makespan, 7);
  EXPECT_DOUBLE_EQ(result.span, 7);
  EXPECT_DOUBLE_EQ(result.ops[1][0].start, 1.5);
  EXPECT_DOUBLE_EQ(result.ops[1][1].end, 4.5);
  EXPECT_DOUBLE_EQ(result.idle[0], 4);
  EXPECT_DOUBLE_EQ(result.idle[1], 4);
  EXPECT_DOUBLE_EQ(result.bubble_fraction, 8.0 / 14);
  EXPECT_DOUBLE_EQ(result.tail_slack[0][0], 0);
  EXPECT_DOUBLE_EQ(result.tail_slack[1][0], 2.5);
  EXPECT_EQ(result.messages, 2);
}

// Bubble beyond the 3m units of work, F = I = W = 1 per stage; with v chunks a chunk op takes 1/v.
TEST(Simulator, BubblesOfTheHandCases) {
  struct Case {
    int p, m;
    double plain, interleaved;
  };
  for (const Case& c : {Case{2, 4, 3, 1.5}, Case{4, 8, 9, 4.5}, Case{8, 16, 21, 10.5}}) {
    EXPECT_NEAR(makespan_of(gpipe_schedule(c.p, c.m), costs(1, 1, 1)), 3 * c.m + c.plain, 1e-9);
    EXPECT_NEAR(makespan_of(one_forward_one_backward_schedule(c.p, c.m), costs(1, 1, 1)),
                3 * c.m + c.plain, 1e-9);
    EXPECT_NEAR(makespan_of(interleaved_schedule(c.p, c.m, 2, c.p), costs(.5, .5, .5)),
                3 * c.m + c.interleaved, 1e-9);
  }
  // Worst rank at p=4, m=8: GPipe 8, 1F1B 4, interleaved 11 half micro-batches.
  const auto worst = [](const Schedule& schedule) {
    const std::vector<int> peaks = simulate(schedule, Costs{}).peak_activations;
    return *std::max_element(peaks.begin(), peaks.end());
  };
  EXPECT_EQ(worst(gpipe_schedule(4, 8)), 8);
  EXPECT_EQ(worst(one_forward_one_backward_schedule(4, 8)), 4);
  EXPECT_EQ(worst(interleaved_schedule(4, 8, 2, 4)), 11);
}

// naive: mp(tF+tB) + 2m(p-1)c; GPipe: (m+p-1)(tF+tB) + 2(p-1)c; 1F1B, p | m: (m+p-1)(tF+tB) +
// c[2(p-2) + 2m(p-1)/p].
TEST(Simulator, TimesOfPlainSchedulesFollowTheirClosedForms) {
  for (int p = 1; p <= 16; ++p) {
    for (int m = 1; m <= 64; ++m) {
      for (const double c : {0.0, 0.125, 0.5}) {
        const Costs cost = costs(1, 0.75, 1.5, c);
        const double both = 1 + 2.25;
        EXPECT_NEAR(makespan_of(naive_schedule(p, m), cost), m * p * both + 2 * m * (p - 1) * c,
                    1e-6);
        EXPECT_NEAR(makespan_of(gpipe_schedule(p, m), cost), (m + p - 1) * both + 2 * (p - 1) * c,
                    1e-6);
        if (m % p != 0 || p == 1) continue;
        EXPECT_NEAR(makespan_of(one_forward_one_backward_schedule(p, m), cost),
                    (m + p - 1) * both + c * (2 * (p - 2) + 2.0 * m * (p - 1) / p), 1e-6)
            << "p" << p << " m" << m << " c" << c;
      }
    }
  }
}

// g = p | m and c <= tF: (mv+p-1)(tF+tB) + 2(pv-1)c.
TEST(Simulator, TimesOfInterleavedFollowTheirClosedForm) {
  for (int p = 2; p <= 16; p += p < 4 ? 1 : 4) {
    for (int rounds = 1; rounds <= 4; ++rounds) {
      for (int v = 2; v <= 8; v += 2) {
        for (const double c : {0.0, 0.5, 1.0}) {
          const int m = p * rounds;
          EXPECT_NEAR(makespan_of(interleaved_schedule(p, m, v, p), costs(1, 0.75, 1.5, c)),
                      (m * v + p - 1) * 3.25 + 2 * (p * v - 1) * c, 1e-6)
              << "p" << p << " m" << m << " v" << v << " c" << c;
        }
      }
    }
  }
}

TEST(Simulator, MemoryAndMessagesFollowTheirClosedForms) {
  for (int p = 1; p <= 9; ++p) {
    for (int m = 1; m <= 20; ++m) {
      const Simulation naive = simulate(naive_schedule(p, m), Costs{});
      const Simulation gpipe = simulate(gpipe_schedule(p, m), Costs{});
      const Simulation plain = simulate(one_forward_one_backward_schedule(p, m), Costs{});
      EXPECT_EQ(naive.messages, 2 * m * (p - 1));
      EXPECT_EQ(gpipe.messages, 2 * m * (p - 1));
      EXPECT_EQ(plain.messages, 2 * m * (p - 1));
      for (int r = 0; r < p; ++r) {
        const auto rank = static_cast<size_t>(r);
        EXPECT_EQ(naive.peak_activations[rank], 1);
        EXPECT_EQ(gpipe.peak_activations[rank], m);
        EXPECT_EQ(plain.peak_activations[rank], std::min(p - r, m));
        // 1F1B leaves rank r a tail of r backwards.
        EXPECT_NEAR(plain.tail_slack[rank][0], 2.0 * r, 1e-9);
      }
      for (int v = 2; v <= 4; ++v) {
        const int g = legal_groups(p, m).front();
        const Simulation result = simulate(interleaved_schedule(p, m, v, g), Costs{});
        EXPECT_EQ(result.messages, p == 1 ? 0 : 2 * m * (p * v - 1));
        for (int r = 0; r < p; ++r) {
          EXPECT_EQ(result.peak_activations[static_cast<size_t>(r)],
                    std::min(2 * (p - 1 - r) + (v - 1) * g + 1, m * v));
        }
      }
    }
  }
}

TEST(Simulator, AgreesWithADumbOneOnRandomLegalPrograms) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 300; ++trial) {
    const Schedule schedule = random_legal_schedule(random);
    ASSERT_TRUE(check_schedule(schedule).legal) << check_schedule(schedule).reason;
    std::uniform_real_distribution<double> time(0, 2);
    Costs cost;
    cost.stages.clear();
    for (size_t s = 0; s < schedule.stages.size(); ++s) {
      cost.stages.push_back({time(random), time(random), time(random)});
    }
    cost.hop = trial % 3 == 0 ? 0 : time(random);
    std::vector<std::vector<double>> measured;
    if (trial % 4 == 0) {
      for (const auto& program : schedule.ranks) {
        std::vector<double>& row = measured.emplace_back();
        for (size_t i = 0; i < program.size(); ++i) row.push_back(time(random));
      }
      cost.op_time = [&](int rank, size_t i) { return measured[static_cast<size_t>(rank)][i]; };
    }
    const Simulation result = simulate(schedule, cost);
    const auto expected = dumb_times(schedule, cost);
    double makespan = 0;
    for (size_t rank = 0; rank < expected.size(); ++rank) {
      for (size_t i = 0; i < expected[rank].size(); ++i) {
        ASSERT_NEAR(result.ops[rank][i].start, expected[rank][i].start, 1e-9);
        ASSERT_NEAR(result.ops[rank][i].end, expected[rank][i].end, 1e-9);
        makespan = std::max(makespan, expected[rank][i].end);
      }
    }
    EXPECT_NEAR(result.makespan, makespan, 1e-9);
    EXPECT_NEAR(makespan_of(schedule, cost), makespan, 1e-9);
  }
}

TEST(Simulator, SplitBackwardHoldsTheActivationUntilItsWeightGradient) {
  Schedule schedule{"by hand", 2, {{0, 0}}, {{}}};
  using enum OpKind;
  schedule.ranks[0] = {{forward, false, 0, 0},        {backward_input, false, 0, 0},
                       {forward, false, 0, 1},        {backward_weight, false, 0, 0},
                       {backward_input, false, 0, 1}, {backward_weight, false, 0, 1}};
  EXPECT_EQ(simulate(schedule, Costs{}).peak_activations[0], 2);
}

TEST(Simulator, AnOverlappedPairTakesTheSumAndEndsTogether) {
  Schedule schedule{"by hand", 2, {{0, 0}}, {{}}};
  using enum OpKind;
  schedule.ranks[0] = {{forward, false, 0, 0},
                       {forward, true, 0, 1},
                       {backward, false, 0, 0},
                       {backward, false, 0, 1}};
  const Simulation result = simulate(schedule, Costs{});
  EXPECT_DOUBLE_EQ(result.ops[0][1].start, 1);
  EXPECT_DOUBLE_EQ(result.ops[0][2].start, 1);
  EXPECT_DOUBLE_EQ(result.ops[0][1].end, 4);
  EXPECT_DOUBLE_EQ(result.makespan, 6);
  EXPECT_EQ(result.peak_activations[0], 2);
}

TEST(Simulator, APairHidesAShareOfItsShorterOp) {
  Schedule schedule{"by hand", 2, {{0, 0}}, {{}}};
  using enum OpKind;
  schedule.ranks[0] = {{forward, false, 0, 0},
                       {forward, true, 0, 1},
                       {backward, false, 0, 0},
                       {backward, false, 0, 1}};
  Costs cost;  // F 1, B 2: alone 1 + (1 + 2) + 2, of which half an F is hidden
  cost.overlap = 0.5;
  const Simulation result = simulate(schedule, cost);
  EXPECT_DOUBLE_EQ(result.ops[0][2].end, 3.5);
  EXPECT_DOUBLE_EQ(result.makespan, 5.5);
  EXPECT_DOUBLE_EQ(result.idle[0], 0);
}

// F 1, B 2, transfer 3, hop 0.5. 0F0 [0,1], 0F1 [1,2]; the link carries 0F0 over [1,4] and 0F1 over
// [4,7]; so 1F0 [4.5,5.5], 1F1 [7.5,8.5], 1B0 [8.5,10.5], 1B1 [10.5,12.5]; back over [10.5,13.5]
// and [13.5,16.5]; 0B0 [14,16], 0B1 [17,19].
TEST(Simulator, MessagesQueueOnTheirLink) {
  Costs cost = costs(1, 1, 1, 0.5);
  cost.transfer = 3;
  const Simulation result = simulate(gpipe_schedule(2, 2), cost);
  EXPECT_DOUBLE_EQ(result.ops[1][0].start, 4.5);
  EXPECT_DOUBLE_EQ(result.ops[1][1].start, 7.5);
  EXPECT_DOUBLE_EQ(result.ops[0][2].start, 14);
  EXPECT_DOUBLE_EQ(result.ops[0][3].start, 17);
  EXPECT_DOUBLE_EQ(result.makespan, 19);
  // Rank 0 waits over [2,14], of which [10.5,14] for the link, and over [16,17].
  const IdleCauses& first = result.idle_by_cause[0];
  EXPECT_DOUBLE_EQ(first.fill, 0);
  EXPECT_DOUBLE_EQ(first.message, 4.5);
  EXPECT_DOUBLE_EQ(first.dependency, 8.5);
  EXPECT_DOUBLE_EQ(first.imbalance, 0);
  EXPECT_DOUBLE_EQ(first.drain, 0);
  // Rank 1 waits over [5.5,7.5] for what was made at 2.
  const IdleCauses& second = result.idle_by_cause[1];
  EXPECT_DOUBLE_EQ(second.fill, 4.5);
  EXPECT_DOUBLE_EQ(second.message, 2);
  EXPECT_DOUBLE_EQ(second.dependency, 0);
  EXPECT_DOUBLE_EQ(second.drain, 6.5);
  EXPECT_DOUBLE_EQ(second.total(), result.idle[1]);
}

// Rank 0 works 3, rank 1 works 6. 0F [0,1], 1F [1,3], 1B [3,7], 0B [7,9]: of the wait over [1,7],
// 3 is what rank 0 works less.
TEST(Simulator, ImbalanceIsWhatTheBusiestRankWorksMore) {
  Costs cost;
  cost.stages = {{1, 1, 1}, {2, 2, 2}};
  const Simulation result = simulate(naive_schedule(2, 1), cost);
  EXPECT_DOUBLE_EQ(result.idle_by_cause[0].imbalance, 3);
  EXPECT_DOUBLE_EQ(result.idle_by_cause[0].dependency, 3);
  EXPECT_DOUBLE_EQ(result.idle_by_cause[1].fill, 1);
  EXPECT_DOUBLE_EQ(result.idle_by_cause[1].drain, 2);
}

TEST(Simulator, EveryLinkMayHaveItsOwnCost) {
  Costs cost;
  cost.link = [](int from, int to) { return LinkCost{from < to ? 1.0 : 10.0, 0}; };
  // 0F [0,1], 1F [2,3], 1B [3,5], 0B [15,17].
  EXPECT_DOUBLE_EQ(makespan_of(naive_schedule(2, 1), cost), 17);
}

// An F takes 4 units; its I gives 3 of them back; F, I and W take 1 each.
TEST(Simulator, MemoryIsTakenAtTheStartAndFreedAtTheEnd) {
  Schedule schedule{"by hand", 2, {{0, 0}}, {{}}};
  using enum OpKind;
  schedule.ranks[0] = {{forward, false, 0, 0},        {backward_input, false, 0, 0},
                       {forward, false, 0, 1},        {backward_weight, false, 0, 0},
                       {backward_input, false, 0, 1}, {backward_weight, false, 0, 1}};
  Costs cost;
  cost.memory = {{4, 1}};
  const Simulation result = simulate(schedule, cost);
  EXPECT_DOUBLE_EQ(result.peak_memory[0], 5);
  const std::vector<MemoryStep> curve = {{0, 4}, {2, 5}, {4, 4}, {5, 1}, {6, 0}};
  EXPECT_EQ(result.memory[0], curve);
  EXPECT_EQ(result.peak_activations[0], 2);
}

TEST(Simulator, TwoMillionOpsTakeSeconds) {
  const Schedule schedule = interleaved_schedule(16, 8192, 8, 16);  // 16 * 8192 * 8 * 2 ops
  EXPECT_NEAR(makespan_of(schedule, Costs{}), (8192 * 8 + 15) * 3.0, 1e-3);
}

}  // namespace
}  // namespace trireme
