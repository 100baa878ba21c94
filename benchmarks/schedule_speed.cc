// How fast are the checker and the simulator?
//
//   schedule-speed
//
// Times them on interleaved 1F1B with 64 ranks, 4096 micro-batches and 8 chunks (4.2 million ops)
// on one core, beside a plain pass that reads every op once and adds up what it takes: no walk in
// the order of time can be faster. Each figure is the median of five rounds, taken in turn.

#include <fmt/format.h>
#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/simulator.h"

namespace trireme::bench {
namespace {

constexpr int kRounds = 5;

double seconds_of(const std::function<double()>& work, double& sum) {
  const auto begin = std::chrono::steady_clock::now();
  sum += work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double plain_pass(const Schedule& schedule, const Costs& costs) {
  double sum = 0;
  for (const std::vector<Op>& program : schedule.ranks) {
    for (const Op& op : program) sum += costs.of_stage(op.stage).of(op.kind);
  }
  return sum;
}

double checked(const Schedule& schedule, SendMode sends) {
  CheckOptions options;
  options.sends = sends;
  return check_schedule(schedule, options).legal ? 1 : 0;
}

struct Measured {
  const char* name;
  std::function<double()> work;
  std::vector<double> seconds = {};
};

int run() {
  const Schedule schedule = interleaved_schedule(64, 4096, 8, 64);
  Costs costs;
  costs.hop = 0.1;
  costs.transfer = 0.2;
  double ops = 0;
  for (const std::vector<Op>& program : schedule.ranks) ops += static_cast<double>(program.size());
  std::vector<Measured> all = {
      {"plain pass", [&] { return plain_pass(schedule, costs); }},
      {"makespan_of", [&] { return makespan_of(schedule, costs); }},
      {"simulate", [&] { return simulate(schedule, costs).makespan; }},
      {"check, asynchronous", [&] { return checked(schedule, SendMode::asynchronous); }},
      {"check, buffered", [&] { return checked(schedule, SendMode::buffered); }},
  };
  double sum = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (Measured& one : all) one.seconds.push_back(seconds_of(one.work, sum));
  }
  const auto median = [](std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
    return values[kRounds / 2];
  };
  const double plain = median(all.front().seconds);
  fmt::print("{:.0f} ops\n", ops);
  for (const Measured& one : all) {
    const double seconds = median(one.seconds);
    fmt::print("{:<20} {:>7.3f} s, {:>7.1f} million ops/s, {:>6.1f} plain passes\n", one.name,
               seconds, ops / seconds / 1e6, seconds / plain);
  }
  return sum > 0 ? 0 : 1;
}

}  // namespace
}  // namespace trireme::bench

int main() {
  return trireme::bench::run();
}
