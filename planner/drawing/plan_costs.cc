#include "planner/drawing/plan_costs.h"

#include "planner/cost/kernels.h"

namespace trireme {
namespace {

double flops_of(const std::vector<Kernel>& kernels) {
  double sum = 0;
  for (const Kernel& kernel : kernels) sum += kernel.flops;
  return sum;
}

}  // namespace

Costs drawing_costs(const Plan& plan) {
  const WorkShape shape{plan.layout.micro_batch, plan.layout.tensor, plan.layout.sequence_parallel,
                        plan.layout.recompute, plan.job.training.dtype};
  const auto cost_of = [](const PartKernels& part) {
    return StageCost{flops_of(part.forward), flops_of(part.input), flops_of(part.weight)};
  };
  const StageCost layer = cost_of(layer_kernels(plan.job.model, shape));
  const StageCost head = cost_of(head_kernels(plan.job.model, shape));
  Costs costs;
  costs.stages.clear();
  for (const Stage& stage : plan.stages) {
    const double heads = stage.head ? 1 : 0;
    costs.stages.push_back({stage.layers * layer.forward + heads * head.forward,
                            stage.layers * layer.input + heads * head.input,
                            stage.layers * layer.weight + heads * head.weight});
  }
  double pipeline = 0;
  for (const auto& [cause, seconds] : plan.prediction.breakdown) {
    if (cause == "forward" || cause == "backward" || cause == "tensor_communication" ||
        cause == "pipeline_idle") {
      pipeline += seconds;
    }
  }
  const double drawn = makespan_of(plan.schedule, costs);
  const double scale = drawn > 0 && pipeline > 0 ? pipeline / drawn : 1;
  for (StageCost& stage : costs.stages) {
    stage = {scale * stage.forward, scale * stage.input, scale * stage.weight};
  }
  return costs;
}

}  // namespace trireme
