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

std::vector<double> scaled(std::vector<double> numbers, double factor) {
  for (double& number : numbers) number *= factor;
  return numbers;
}

}  // namespace

StepModel::TensorCalls StepModel::tensor_calls(const PlacedLayout& layout,
                                               const std::vector<Stage>& stages) {
  TensorCalls calls;
  calls.bytes = static_cast<double>(layout.micro_batch) * job_.model.sequence * job_.model.hidden *
                work_shape(job_, execution_, layout, Recompute::none).element_bytes();
  calls.count.assign(static_cast<size_t>(layout.pipeline), 0);
  if (layout.tensor == 1) return calls;
  for (const Stage& stage : stages) {
    const bool again = layout.recompute_on(stage.pipeline_rank) == Recompute::full;
    const double directions = layout.trains() ? (again ? 3 : 2) : 1;
    calls.count[static_cast<size_t>(stage.pipeline_rank)] +=
        layout.micro_batches * (2 * directions * stage.layers + (stage.embedding ? 1 : 0) +
                                (stage.head && layout.trains() ? 1 : 0));
  }
  return calls;
}

RankSends StepModel::sends(const PlacedLayout& layout, const std::vector<Stage>& stages) {
  const double weight = job_.training.dtype == Dtype::fp32 ? 4 : 2;
  const double gradient =
      layout.optimizer_sharding > 0 ? (gradient_bytes() + weight) / 2 : gradient_bytes();
  const TensorCalls calls = tensor_calls(layout, stages);
  const double message = layout.micro_batches * message_bytes(layout);
  const std::vector<double> parameters = stage_parameters(job_.model, layout, stages);
  RankSends sends{scaled(calls.count, ring_bytes(layout.tensor, calls.bytes)),
                  std::vector<double>(static_cast<size_t>(layout.pipeline), 0),
                  {},
                  ring_bytes(2, tied_bytes(layout, stages))};
  for (size_t s = 0; s < stages.size(); ++s) {
    const int rank = stages[s].pipeline_rank;
    if (layout.trains()) {
      sends.data[static_cast<size_t>(rank)] += ring_bytes(layout.data, gradient * parameters[s]);
    }
    if (s + 1 == stages.size() || stages[s + 1].pipeline_rank == rank) continue;
    const int next = stages[s + 1].pipeline_rank;
    sends.stages[{rank, next}] += message;
    if (layout.trains()) sends.stages[{next, rank}] += message;
  }
  return sends;
}

std::vector<AxisTraffic> StepModel::traffic(const PlacedLayout& layout,
                                            const std::vector<Stage>& stages,
                                            const RankSends& sends) {
  std::vector<AxisTraffic> result;
  if (layout.tensor > 1) {
    std::vector<double> seconds = tensor_calls(layout, stages).count;
    auto of_rank = seconds.begin();
    for (const Run& run : layout.placement.runs) {
      const double once = kinds_[run.group].tensor_seconds(layout);
      for (int rank = 0; rank < run.pipeline_ranks; ++rank) *of_rank++ *= once;
    }
    result.push_back(largest("tensor", sends.tensor, seconds));
  }
  const auto ranks = static_cast<size_t>(layout.pipeline);
  if (layout.data > 1) {
    const std::vector<double> reductions = reduction_seconds(layout, stages);
    std::vector<double> reducing(ranks, 0);
    for (size_t s = 0; s < stages.size(); ++s) {
      reducing[static_cast<size_t>(stages[s].pipeline_rank)] += reductions[s];
    }
    result.push_back(largest("data", sends.data, reducing));
  }
  if (layout.pipeline > 1) {
    const double bytes = message_bytes(layout);
    std::vector<double> sent(ranks, 0);
    for (const auto& [ends, sum] : sends.stages) sent[static_cast<size_t>(ends.first)] += sum;
    const double each = message_seconds(bytes, pipeline_paths(layout).neighbours);
    result.push_back(largest("pipeline", sent, scaled(sent, each / bytes)));
  }
  return result;
}

}  // namespace trireme
