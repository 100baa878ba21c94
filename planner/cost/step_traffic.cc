#include <algorithm>

#include "planner/cost/step.h"

namespace trireme {
namespace {

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
  RankSends sends;
  sends.tensor = tensor_sends(layout, stages);
  sends.data.assign(static_cast<size_t>(layout.pipeline), 0);
  sends.shards = sends.data;
  sends.replicas_of_shards = optimizer_shards(execution_, layout);
  if (layout.trains() && layout.data > 1) add_reduction_sends(layout, stages, sends);
  if (const double table = tied_bytes(layout, stages); table > 0) {
    sends.ends = all_reduce_sends(2, table, pipeline_paths(layout).ends);
  }
  const double message = layout.micro_batches * message_bytes(layout);
  for (size_t s = 0; s + 1 < stages.size(); ++s) {
    const int rank = stages[s].pipeline_rank, next = stages[s + 1].pipeline_rank;
    if (rank == next) continue;
    sends.stages[{rank, next}] += message;
    if (layout.trains()) sends.stages[{next, rank}] += message;
  }
  return sends;
}

std::vector<double> StepModel::tensor_sends(const PlacedLayout& layout,
                                            const std::vector<Stage>& stages) {
  const TensorCalls calls = tensor_calls(layout, stages);
  std::vector<double> bytes = calls.count;
  auto of_rank = bytes.begin();
  for (const Run& run : layout.placement.runs) {
    const double each =
        layout.sequence_parallel
            ? scatter_gather_sends(layout.tensor, calls.bytes)
            : all_reduce_sends(layout.tensor, calls.bytes, links_.tensor(run.group, layout.tensor));
    for (int rank = 0; rank < run.pipeline_ranks; ++rank) *of_rank++ *= each;
  }
  return bytes;
}

void StepModel::add_reduction_sends(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                    RankSends& sends) {
  const ReductionBytes bytes = reduction_bytes(layout);
  const std::vector<double> parameters = stage_parameters(job_.model, layout, stages);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    sends.data[rank] +=
        all_reduce_sends(layout.data, bytes.summed * parameters[s], data_path(layout)) +
        scatter_gather_sends(layout.data, bytes.scattered * parameters[s]);
    sends.shards[rank] +=
        scatter_gather_sends(sends.replicas_of_shards, bytes.among_shards * parameters[s]);
  }
}

double StepModel::shared_links_at_most(const PlacedLayout& layout,
                                       const std::vector<Stage>& stages) const {
  std::vector<double> reduced(static_cast<size_t>(layout.pipeline), 0), messages = reduced;
  const double message = layout.micro_batches * message_bytes(layout);
  for (const Stage& stage : stages) {
    messages[static_cast<size_t>(stage.pipeline_rank)] += 2 * message;
  }
  if (layout.trains() && layout.data > 1) {
    const ReductionBytes bytes = reduction_bytes(layout);
    const double sent = 2 * (bytes.summed + bytes.scattered + bytes.among_shards);
    const std::vector<double> parameters = stage_parameters(job_.model, layout, stages);
    for (size_t s = 0; s < stages.size(); ++s) {
      reduced[static_cast<size_t>(stages[s].pipeline_rank)] += sent * parameters[s];
    }
  }
  const auto most = [](const std::vector<double>& of_rank) {
    return *std::max_element(of_rank.begin(), of_rank.end());
  };
  return links_.rings_at_most(layout, most(reduced)) +
         links_.messages_at_most(layout, most(messages) + 2 * tied_bytes(layout, stages));
}

// NICs and uplinks are shared by ranks that do different things at once: messages forward and back,
// reductions of several stages, which have a link each in the simulation. No step is shorter than
// the busiest of them takes for all that leaves it.
double StepModel::shared_links_seconds(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                       double step) {
  if (measured(layout) || shared_links_at_most(layout, stages) <= step) return 0;
  if (data_group(layout).profile != nullptr) return 0;
  double busiest = 0;
  for (const LinkTraffic& link : busiest_links(cluster_, layout, sends(layout, stages))) {
    if (link.link != kDeviceLink) busiest = std::max(busiest, link.seconds);
  }
  return busiest;
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
    std::vector<double> sent = sends.data;
    for (size_t rank = 0; rank < ranks; ++rank) sent[rank] += sends.shards[rank];
    result.push_back(largest("data", sent, reducing));
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
