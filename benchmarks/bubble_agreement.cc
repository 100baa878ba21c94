// Does the simulator see the bubble that a run had?
//
//   bubble-agreement RUN_DIRECTORY
//
// Reads the run's plan and traces. For every step and every pipeline (one per tensor and data
// coordinate) it takes the time that each op really took, lets the simulator run the schedule with
// those times, and compares the bubble with the measured one: idle time between the first op's
// begin and the last op's end, over all ranks of the pipeline. The first step is left out: it
// starts while ranks are still loading.

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "planner/drawing/run_trace.h"
#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "planner/simulator.h"

namespace trireme::bench {
namespace {

struct Bubbles {
  double measured = 0;
  double simulated = 0;
};

Bubbles compare(const Plan& plan, const std::vector<RankStep>& pipeline) {
  double first = INFINITY;
  double last = 0;
  double busy = 0;
  for (const auto& rank : pipeline) {
    for (const auto& op : rank) {
      first = std::min(first, op.start);
      last = std::max(last, op.end);
      busy += op.end - op.start;
    }
  }
  Costs costs;
  costs.op_time = [&](int rank, size_t position) {
    const OpTimes& op = pipeline[static_cast<size_t>(rank)][position];
    return op.end - op.start;
  };
  const double ranks = static_cast<double>(pipeline.size());
  return {1 - busy / (ranks * (last - first)), simulate(plan.schedule, costs).bubble_fraction};
}

int run(const RunDirectory& directory) {
  const Plan plan = read_plan(directory.plan());
  Bubbles sum;
  double difference = 0;
  int count = 0;
  for (int r = 0; r < plan.layout.tensor * plan.layout.data; ++r) {
    const auto steps = read_run_trace(directory, plan, Rank(r));
    for (const auto& [step, pipeline] : steps) {
      if (step == steps.begin()->first) continue;
      const Bubbles bubbles = compare(plan, pipeline);
      sum.measured += bubbles.measured;
      sum.simulated += bubbles.simulated;
      difference += std::abs(bubbles.measured - bubbles.simulated);
      ++count;
    }
  }
  if (count == 0) {
    fmt::print(stderr, "{}: found no traced steps beyond the first\n", directory.root);
    return 2;
  }
  fmt::print(
      "bubble of {} steps and pipelines: measured {:.1f} %, simulated from the measured op times "
      "{:.1f} %, mean "
      "difference {:.1f} points\n",
      count, 100 * sum.measured / count, 100 * sum.simulated / count, 100 * difference / count);
  return 0;
}

}  // namespace
}  // namespace trireme::bench

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: bubble-agreement RUN_DIRECTORY\n");
    return 2;
  }
  try {
    return trireme::bench::run({arguments[1]});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bubble-agreement: %s\n", error.what());
    return 1;
  }
}
