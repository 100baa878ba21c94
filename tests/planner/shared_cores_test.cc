#include "planner/shared_cores.h"

#include <gtest/gtest.h>

#include <random>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

SharedCores one_machine(size_t ranks, double cores, double each) {
  return {{cores}, std::vector<std::vector<double>>(ranks, {each})};
}

double makespan(const Schedule& schedule, Costs costs, const SharedCores& machines) {
  const auto seconds = shared_op_seconds(schedule, costs, machines);
  costs.op_time = [&](int rank, size_t position) {
    return seconds[static_cast<size_t>(rank)][position];
  };
  return simulate(schedule, costs).makespan;
}

// Two ranks, two micro-batches, full backwards of 2, forwards of 1, on a single core:
//   0..1   0F0 alone
//   1..3   0F1 and 1F0 at half speed
//   3..5   1B0 alone (rank 0 waits for it)
//   5..7   1F1 beside 0B0, both at half speed: 1F1 has done its 1, 0B0 1 of its 2
//   7..9   0B0's other half beside half of 1B1
//   9..10  the other half of 1B1
//   10..12 0B1
TEST(SharedCores, OneCoreIsSharedByWhatRuns) {
  const Schedule schedule = make_schedule({.name = "1f1b", .pipeline = 2, .micro_batches = 2});
  const auto seconds = shared_op_seconds(schedule, Costs{}, one_machine(2, 1, 1));
  ASSERT_EQ(to_string(schedule.ranks[0][1]), "0F1");
  EXPECT_EQ(seconds[0], (std::vector<double>{1, 2, 4, 2}));
  ASSERT_EQ(to_string(schedule.ranks[1][1]), "1B0");
  EXPECT_EQ(seconds[1], (std::vector<double>{2, 2, 2, 3}));
  // All work is 12, and the core is never idle.
  EXPECT_DOUBLE_EQ(makespan(schedule, Costs{}, one_machine(2, 1, 1)), 12);
}

// What asks for more than the machine has is slowed down by the ratio, alone or not.
TEST(SharedCores, ARankMayAskForMoreThanThereIs) {
  const Schedule schedule = make_schedule({.name = "gpipe", .pipeline = 1, .micro_batches = 3});
  EXPECT_DOUBLE_EQ(makespan(schedule, Costs{}, one_machine(1, 2, 8)), 4 * 9);
}

// A rank on two machines is as slow as on the busier; one on a quiet machine is not slowed down.
TEST(SharedCores, MachinesAreIndependent) {
  const Schedule schedule = make_schedule({.name = "gpipe", .pipeline = 2, .micro_batches = 1});
  const SharedCores machines{{1, 1}, {{1, 3}, {0, 1}}};
  const auto seconds = shared_op_seconds(schedule, Costs{}, machines);
  EXPECT_EQ(seconds[0], (std::vector<double>{3, 6}));
  EXPECT_EQ(seconds[1], (std::vector<double>{1, 2}));
}

Costs random_costs(std::mt19937& random, const Schedule& schedule) {
  std::uniform_real_distribution<double> seconds(0, 3);
  Costs costs;
  costs.stages.clear();
  for (size_t s = 0; s < schedule.stages.size(); ++s) {
    costs.stages.push_back({seconds(random), seconds(random), seconds(random)});
  }
  costs.hop = seconds(random) / 4;
  costs.transfer = seconds(random) / 4;
  costs.overlap = seconds(random) / 3;
  return costs;
}

TEST(SharedCores, WithCoresForAllItIsThePlainSimulation) {
  std::mt19937 random(5);
  for (const std::string name : {"1f1b", "gpipe", "zb-h1", "interleaved", "zb-v", "dualpipe-v"}) {
    const bool two = name == "interleaved" || name == "zb-v" || name == "dualpipe-v";
    const Schedule schedule =
        make_schedule({.name = name, .pipeline = 4, .micro_batches = 8, .chunks = two ? 2 : 1});
    const Costs costs = random_costs(random, schedule);
    const auto seconds = shared_op_seconds(schedule, costs, one_machine(4, 4, 1));
    for (size_t rank = 0; rank < 4; ++rank) {
      for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
        const Op& op = schedule.ranks[rank][i];
        EXPECT_NEAR(seconds[rank][i], costs.of_stage(op.stage).of(op.kind), 1e-9) << name;
      }
    }
    EXPECT_NEAR(makespan(schedule, costs, one_machine(4, 4, 1)), simulate(schedule, costs).makespan,
                1e-9)
        << name;
  }
}

// Between the two bounds that hold for any way to share: the plain simulation and all work on all
// cores; and never beyond the plain one slowed down as if all ran all the time.
TEST(SharedCores, LiesBetweenItsBounds) {
  std::mt19937 random(6);
  for (int trial = 0; trial < 50; ++trial) {
    const std::string name = trial % 2 == 0 ? "1f1b" : "zb-h1";
    const Schedule schedule = make_schedule({.name = name, .pipeline = 5, .micro_batches = 7});
    Costs costs = random_costs(random, schedule);
    costs.hop = costs.transfer = 0;
    const double plain = simulate(schedule, costs).makespan;
    double work = 0;
    for (const auto& program : schedule.ranks) {
      for (const Op& op : program) work += costs.of_stage(op.stage).of(op.kind);
    }
    const double shared = makespan(schedule, costs, one_machine(5, 2, 1));
    EXPECT_GE(shared, plain * (1 - 1e-9));
    EXPECT_GE(shared, work / 2 * (1 - 1e-9));
    EXPECT_LE(shared, plain * 5 / 2 * (1 + 1e-9));
  }
}

}  // namespace
}  // namespace trireme
