#include <algorithm>

#include "planner/cost/step.h"

namespace trireme {
namespace {

// What a rank of n sends in a ring all-reduce, or in a reduce-scatter and an all-gather.
double ring_bytes(int n, double bytes) {
  return 2.0 * (n - 1) / n * bytes;
}

AxisTraffic largest(const char* axis, const std::vector<double>& bytes,
                    const std::vector<double>& seconds) {
  const auto most = std::max_element(bytes.begin(), bytes.end());
  return {axis, *most, seconds[static_cast<size_t>(most - bytes.begin())]};
}

}  // namespace

std::vector<AxisTraffic> StepModel::traffic(const PlacedLayout& layout,
                                            const std::vector<Stage>& stages) {
  const auto ranks = static_cast<size_t>(layout.pipeline);
  const bool trains = layout.schedule != "forward-only";
  const double weight = job_.training.dtype == Dtype::fp32 ? 4 : 2;
  const double gradient =
      layout.optimizer_sharding > 0 ? (gradient_bytes() + weight) / 2 : gradient_bytes();
  const double hidden = static_cast<double>(layout.micro_batch) * job_.model.sequence *
                        job_.model.hidden * work_shape(job_, layout).element_bytes();
  const double directions = trains ? (layout.recompute == Recompute::full ? 3 : 2) : 1;
  const std::vector<double> parameters = stage_parameters(job_.model, layout, stages);
  const std::vector<double> reductions = reduction_seconds(layout, stages);

  std::vector<double> collectives(ranks, 0), messages(ranks, 0), reduced(ranks, 0),
      reducing(ranks, 0);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    collectives[rank] += 2 * directions * stages[s].layers + (stages[s].embedding ? 1 : 0) +
                         (stages[s].head && trains ? 1 : 0);
    reduced[rank] += trains ? ring_bytes(layout.data, gradient * parameters[s]) : 0;
    reducing[rank] += reductions[s];
    if (s + 1 == stages.size() || stages[s + 1].pipeline_rank == stages[s].pipeline_rank) continue;
    messages[rank] += 1;
    if (trains) messages[static_cast<size_t>(stages[s + 1].pipeline_rank)] += 1;
  }

  const auto scaled = [&](const std::vector<double>& counts, double each) {
    std::vector<double> result;
    result.reserve(counts.size());
    for (const double count : counts) result.push_back(layout.micro_batches * count * each);
    return result;
  };
  std::vector<AxisTraffic> result;
  if (layout.tensor > 1) {
    double once = 0;
    for (const Run& run : layout.placement.runs) {
      once = std::max(once, kinds_[run.group].tensor_seconds(layout));
    }
    result.push_back(largest("tensor", scaled(collectives, ring_bytes(layout.tensor, hidden)),
                             scaled(collectives, once)));
  }
  if (layout.data > 1) result.push_back(largest("data", reduced, reducing));
  if (layout.pipeline > 1) {
    const double bytes = message_bytes(layout);
    result.push_back(
        largest("pipeline", scaled(messages, bytes),
                scaled(messages, message_seconds(bytes, pipeline_paths(layout).neighbours))));
  }
  return result;
}

}  // namespace trireme
