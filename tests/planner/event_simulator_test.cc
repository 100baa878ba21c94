#include "tests/planner/event_simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "planner/simulator.h"
#include "tests/planner/random_schedule.h"

namespace trireme {
namespace {

// At that time a rank holds the most that the simulation knows of, where no op is over as it
// starts.
void expect_peak(const Simulation& simulation, double time, size_t rank) {
  for (const OpTimes& op : simulation.ops[rank]) {
    if (op.start == op.end) return;
  }
  const std::vector<MemoryStep>& steps = simulation.memory[rank];
  if (steps.empty()) return;
  const auto peak = std::find_if(steps.begin(), steps.end(),
                                 [&](const MemoryStep& step) { return step.time == time; });
  ASSERT_NE(peak, steps.end());
  const double most = simulation.peak_memory[rank];
  EXPECT_NEAR(peak->units, most, 1e-9 * std::max(1.0, most));
}

// Everything that both simulations know, to 1e-9 of the larger of 1 and the makespan.
void expect_agreement(const Schedule& schedule, const Costs& costs) {
  EventSimulator expected(schedule, costs);
  expected.run();
  const Simulation result = simulate(schedule, costs);
  const double tolerance = 1e-9 * std::max(1.0, expected.makespan());
  const auto same = [&](double a, double b) { return std::abs(a - b) <= tolerance; };
  EXPECT_PRED2(same, result.makespan, expected.makespan());
  EXPECT_PRED2(same, makespan_of(schedule, costs), expected.makespan());
  EXPECT_EQ(timing_of(schedule, costs).last_gradient, result.last_gradient);
  // Whether a step ends in time is known, on either side of the limit.
  const auto within = timing_within(schedule, costs, result.makespan);
  ASSERT_TRUE(within);
  EXPECT_EQ(within->makespan, result.makespan);
  EXPECT_EQ(within->last_gradient, result.last_gradient);
  if (result.makespan > 0) {
    EXPECT_FALSE(timing_within(schedule, costs, result.makespan * (1 - 1e-6)));
  }
  const std::vector<double> peaks = peak_times(schedule, costs);
  for (size_t r = 0; r < schedule.ranks.size(); ++r) expect_peak(result, peaks[r], r);
  double span = 0, least_idle = INFINITY, idle_sum = 0;
  for (size_t r = 0; r < schedule.ranks.size(); ++r) {
    const EventSimulator::Rank& rank = expected.rank(r);
    if (!rank.ops.empty()) span = std::max(span, rank.last_end - rank.first_start);
    least_idle = std::min(least_idle, expected.idle(r));
    idle_sum += expected.idle(r);
  }
  EXPECT_PRED2(same, result.span, span);
  const double area = expected.makespan() * static_cast<double>(schedule.ranks.size());
  EXPECT_NEAR(result.bubble_fraction, area > 0 ? idle_sum / area : 0, 1e-9);
  for (size_t r = 0; r < schedule.ranks.size(); ++r) {
    const EventSimulator::Rank& rank = expected.rank(r);
    for (size_t i = 0; i < rank.ops.size(); ++i) {
      ASSERT_PRED2(same, result.ops[r][i].start, rank.ops[i].start) << "rank " << r << " op " << i;
      ASSERT_PRED2(same, result.ops[r][i].end, rank.ops[i].end) << "rank " << r << " op " << i;
    }
    EXPECT_PRED2(same, result.idle[r], expected.idle(r));
    EXPECT_EQ(result.peak_activations[r], rank.peak_activations);
    EXPECT_NEAR(result.peak_memory[r], rank.peak_memory, 1e-9 * std::max(1.0, rank.peak_memory));
    const IdleCauses& causes = result.idle_by_cause[r];
    EXPECT_PRED2(same, causes.total(), expected.idle(r));
    EXPECT_PRED2(same, causes.fill, rank.ops.empty() ? 0 : rank.fill);
    EXPECT_PRED2(same, causes.drain, expected.makespan() - rank.last_end);
    EXPECT_PRED2(same, causes.message, rank.in_transit);
    const double rest = rank.waited - rank.in_transit;
    EXPECT_PRED2(same, causes.imbalance, std::min(rest, expected.idle(r) - least_idle));
    EXPECT_GE(causes.dependency, 0);
  }
}

class RandomCosts {
 public:
  explicit RandomCosts(std::mt19937& random) : random_(random) {}

  // Every feature is there in some of the costs, and missing in others.
  Costs draw(const Schedule& schedule) {
    Costs costs;
    if (maybe()) {
      costs.stages.clear();
      for (size_t s = 0; s < schedule.stages.size(); ++s) {
        costs.stages.push_back({time(), time(), time()});
      }
    }
    if (maybe()) costs.hop = time();
    if (maybe()) costs.transfer = time();
    if (maybe()) costs.overlap = std::uniform_real_distribution<double>(0, 1)(random_);
    if (maybe()) {
      for (size_t s = 0; s < schedule.stages.size(); ++s) costs.memory.push_back({time(), time()});
    }
    if (maybe()) {
      const double spread = time();
      costs.link = [spread](int from, int to) {
        return LinkCost{0.1 * from + 0.3 * to * spread, spread / (1 + from + to)};
      };
    }
    return costs;
  }

 private:
  bool maybe() { return random_() % 2 == 0; }
  // Zero now and then: an op, a link or an activation may cost nothing.
  double time() {
    return random_() % 8 == 0 ? 0 : std::uniform_real_distribution<double>(0, 2)(random_);
  }
  std::mt19937& random_;
};

TEST(EventSimulation, AgreesOnRandomLegalProgramsAndUnequalCosts) {
  std::mt19937 random(20);
  RandomCosts costs(random);
  int pairs = 0;
  for (int trial = 0; trial < 3000 && !testing::Test::HasFailure(); ++trial) {
    const int ranks = 1 + static_cast<int>(random() % 6),
              chunks = 1 + static_cast<int>(random() % 3);
    const auto kind = static_cast<PlacementKind>(trial % 3);
    Schedule schedule =
        random_legal_schedule(random_placement(kind, ranks, chunks, random), ranks,
                              1 + static_cast<int>(random() % 6), trial % 16 == 0, random);
    if (trial % 2 == 0) pairs += pair_at_random(schedule, 6, random);
    SCOPED_TRACE("trial " + std::to_string(trial) + "\n" + to_csv(schedule));
    ASSERT_TRUE(check_schedule(schedule).legal);
    expect_agreement(schedule, costs.draw(schedule));
  }
  EXPECT_GT(pairs, 1000);
}

TEST(EventSimulation, AgreesOnTheFamily) {
  std::mt19937 random(21);
  RandomCosts costs(random);
  for (int p = 1; p <= 5; ++p) {
    for (int m = 1; m <= 8; ++m) {
      for (const Schedule& schedule :
           {naive_schedule(p, m), gpipe_schedule(p, m), one_forward_one_backward_schedule(p, m),
            interleaved_schedule(p, m, 2, legal_groups(p, m).front())}) {
        SCOPED_TRACE(schedule.name);
        expect_agreement(schedule, costs.draw(schedule));
      }
    }
  }
}

TEST(EventSimulation, AgreesAfterAHundredThousandOps) {
  Costs costs;
  costs.stages = {{0.1, 0.2, 0.3}, {0.7, 0.1, 1.1}, {0.3, 0.9, 0.7}, {1.3, 0.1, 0.1}};
  costs.hop = 0.1;
  costs.transfer = 0.7;
  expect_agreement(one_forward_one_backward_schedule(4, 12500), costs);
}

}  // namespace
}  // namespace trireme
