#include "planner/synthesis/placed_anew.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "planner/synthesis/list_scheduler.h"

namespace trireme {
namespace {

// Micro-batches in flight that the hops of a whole trip ask for.
int in_flight_for_hops(const Schedule& schedule, const Costs& costs) {
  const auto stages = static_cast<double>(schedule.stages.size());
  std::vector<double> work(schedule.ranks.size(), 0);
  for (size_t s = 0; s < schedule.stages.size(); ++s) {
    const StageCost& cost = costs.of_stage(static_cast<int>(s));
    work[static_cast<size_t>(schedule.stages[s].rank)] += cost.forward + cost.backward();
  }
  const double slowest = *std::max_element(work.begin(), work.end());
  if (slowest <= 0) return 0;
  const double wanted = std::ceil(2 * (stages - 1) * (costs.hop + costs.transfer) / slowest);
  return static_cast<int>(std::min<double>(wanted, schedule.micro_batches));
}

// By op of the flow: when it starts if messages take no time.
std::vector<double> undelayed_starts(const Flow& flow, const Schedule& schedule, Costs costs,
                                     const std::vector<double>& unlimited) {
  costs.hop = costs.transfer = 0;
  const Flow undelayed =
      make_flow(schedule.stages, schedule.pipeline(), schedule.micro_batches, costs, unlimited);
  FlowClock clock(undelayed);
  clock.run(programs_of(flow, schedule), std::numeric_limits<double>::infinity());
  return clock.starts();
}

// Input gradients before forwards before weight gradients, earlier micro-batches first.
std::vector<double> gradients_first(const Flow& flow) {
  const int stages = static_cast<int>(flow.stages.size());
  std::vector<double> keys(flow.op_count());
  for (int type = 0; type < static_cast<int>(flow.type_count()); ++type) {
    const int kind = type / stages;  // F, I, W
    const double turn = kind == 0 ? 1 : kind == 1 ? 0 : 2;
    for (int k = 0; k < flow.micro_batches; ++k) {
      keys[flow.op(type, k)] = turn * flow.micro_batches + k;
    }
  }
  return keys;
}

}  // namespace

std::vector<Schedule> placed_anew(const Schedule& schedule, const Costs& costs,
                                  const std::vector<int>& most) {
  const std::vector<int> peaks = simulate(schedule, {}).peak_activations;
  const int own = *std::max_element(peaks.begin(), peaks.end());
  const int chunks = static_cast<int>(schedule.stages.size()) / schedule.pipeline();
  const int more = in_flight_for_hops(schedule, costs) * chunks;
  Costs in_activations = costs;
  in_activations.memory.clear();
  const std::vector<double> unlimited(schedule.ranks.size(),
                                      std::numeric_limits<double>::infinity());
  const Flow flow = make_flow(schedule.stages, schedule.pipeline(), schedule.micro_batches,
                              in_activations, unlimited);
  const std::vector<double> orders[] = {undelayed_starts(flow, schedule, in_activations, unlimited),
                                        gradients_first(flow)};
  std::vector<Schedule> result;
  std::vector<double> last_depth;
  for (const int added : {0, more / 2, more}) {
    std::vector<double> depth;
    for (size_t rank = 0; rank < most.size(); ++rank) {
      depth.push_back(std::min({static_cast<double>(std::max(own, chunks) + added),
                                static_cast<double>(most[rank]), flow.limit[rank]}));
    }
    if (depth == last_depth || *std::min_element(depth.begin(), depth.end()) < chunks) continue;
    for (const std::vector<double>& keys : orders) {
      for (const double patience : {0.0, 0.9}) {
        Schedule placed = schedule_of(flow, list_schedule(flow, {keys, depth, patience}));
        placed.name = schedule.name;
        result.push_back(std::move(placed));
      }
    }
    last_depth = std::move(depth);
  }
  return result;
}

}  // namespace trireme
