#include "planner/improve.h"

#include <fmt/format.h>

#include "planner/drawing/plan_costs.h"
#include "planner/summary.h"
#include "planner/synthesis/automatic.h"

namespace trireme {
namespace {

// In bytes: what activations may take beside everything else that a rank holds.
AutoRequest request_of(const Plan& plan, const Cluster& cluster) {
  AutoRequest request{.pipeline = plan.layout.pipeline,
                      .micro_batches = plan.layout.micro_batches,
                      .chunks = plan.layout.chunks,
                      .costs = drawing_costs(plan)};
  std::vector<double> bytes;
  for (const StagePrediction& stage : plan.prediction.stages) {
    bytes.push_back(stage.activation_bytes);
    request.costs.memory.push_back({stage.activation_bytes, stage.activation_bytes});
  }
  const std::vector<double> held = peak_activation_bytes(plan.schedule, bytes);
  const std::vector<RankMemory> memory = memory_by_rank(plan, cluster);
  request.memory_limit.emplace();
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    request.memory_limit->push_back(memory[rank].device_bytes - memory[rank].parts.total() +
                                    held[rank]);
  }
  return request;
}

Job pinned_to(Job job, const Layout& layout) {
  job.pins.tensor = layout.tensor;
  job.pins.data = layout.data;
  job.pins.micro_batch = layout.micro_batch;
  job.pins.recompute = layout.recompute;
  job.pins.recompute_ranks = layout.recompute_ranks;
  job.pins.sequence_parallel = layout.sequence_parallel;
  job.pins.optimizer_sharding = layout.optimizer_sharding;
  return job;
}

}  // namespace

PlanResult improve_schedule(const Job& job, const Cluster& cluster, const PlanOptions& options,
                            PlanResult result) {
  const Plan& plan = result.plan;
  if (plan.layout.pipeline == 1 || plan.schedule.asynchronous) {
    result.notes.emplace_back("there is no pipeline of one version of the weights to improve.");
    return result;
  }
  if (!plan.layout.shares.empty()) {
    result.notes.emplace_back("schedules of replicas of several kinds are not improved.");
    return result;
  }
  const AutoChoice choice = choose_schedule(request_of(plan, cluster));
  PlanOptions again = options;
  again.top = 1;
  again.schedule = std::make_shared<Schedule>(choice.schedule);
  const auto answer = try_plan(pinned_to(job, plan.layout), cluster, again);
  const auto* improved = std::get_if<PlanResult>(&answer);
  const double before = plan.prediction.step_seconds;
  if (improved == nullptr || improved->plan.prediction.step_seconds >= before * (1 - 1e-9)) {
    result.notes.push_back(
        fmt::format("auto found no schedule that is faster than {}.", plan.layout.schedule));
    return result;
  }
  result.notes.push_back(fmt::format(
      "auto ({}) makes the step {:.2g} % shorter than {}; no order of these ops ends more than "
      "{:.2g} % earlier.",
      choice.origin, 100 * (1 - improved->plan.prediction.step_seconds / before),
      plan.layout.schedule, 100 * (1 - choice.lower_bound / choice.makespan)));
  result.plan.layout = improved->plan.layout;
  result.plan.stages = improved->plan.stages;
  result.plan.schedule = improved->plan.schedule;
  result.plan.placement = improved->plan.placement;
  result.plan.prediction = improved->plan.prediction;
  return result;
}

}  // namespace trireme
