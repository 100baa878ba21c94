#include "planner/drawing/plan_costs.h"

#include <algorithm>

namespace trireme {
namespace {

// The seconds of the step that the pipeline takes, by the plan's own account.
double pipeline_seconds(const Plan& plan) {
  double seconds = 0;
  for (const auto& [cause, part] : plan.prediction.breakdown) {
    if (cause == "forward" || cause == "backward" || cause == "tensor_communication" ||
        cause == "pipeline_idle") {
      seconds += part;
    }
  }
  return seconds;
}

}  // namespace

Costs drawing_costs(const Plan& plan) {
  Costs costs;
  costs.stages.clear();
  costs.transfer = plan.prediction.transfer_seconds;
  costs.hop = plan.prediction.hop_seconds;
  for (const StagePrediction& stage : plan.prediction.stages) {
    costs.stages.push_back({stage.forward_seconds, stage.input_seconds, stage.weight_seconds});
  }
  if (!costs.stages.empty()) return costs;
  for (const Stage& stage : plan.stages) {
    const double work = std::max(1, stage.layers);
    costs.stages.push_back({work, work, work});
  }
  const double drawn = makespan_of(plan.schedule, costs), predicted = pipeline_seconds(plan);
  const double scale = drawn > 0 && predicted > 0 ? predicted / drawn : 1;
  for (StageCost& stage : costs.stages) {
    stage = {scale * stage.forward, scale * stage.input, scale * stage.weight};
  }
  return costs;
}

}  // namespace trireme
