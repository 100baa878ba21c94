#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "planner/cost/step.h"

namespace trireme {
namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();

// Weights, and for GPT biases, of both norms, attention and feed-forward.
int layer_tensors(const Model& model) {
  return model.family == Family::llama ? 9 : 16;
}

}  // namespace

// With an optimizer that is sharded over all replicas a reduce-scatter, half of an all-reduce, and
// an all-gather of the new weights, in the type of the products; sharded over some of them, the
// gradients' all-reduce and an all-gather among those.
StepModel::ReductionBytes StepModel::reduction_bytes(const Layout& layout) const {
  const double gradient = gradient_bytes(job_.training.dtype, execution_);
  if (layout.optimizer_sharding == 0) return {.summed = gradient};
  const double weight = job_.training.dtype == Dtype::fp32 ? 4 : 2;
  if (optimizer_shards(execution_, layout) == layout.data) {
    return {.scattered = (gradient + weight) / 2};
  }
  return {.summed = gradient, .among_shards = weight / 2};
}

double StepModel::DataGroup::seconds(AcceleratorProfile::Collective kind, double bytes) const {
  const auto measured =
      profile == nullptr ? std::nullopt : profile->seconds(kind, ranks, nodes, bytes);
  if (measured) return *measured;
  return kind == AcceleratorProfile::Collective::all_reduce
             ? all_reduce_seconds(ranks, bytes, path)
             : scatter_gather_seconds(ranks, bytes, path);
}

StepModel::DataGroup StepModel::data_group(const PlacedLayout& layout) {
  DataGroup group{layout.data, data_path(layout)};
  const AcceleratorProfile* profile = kinds_[layout.placement.runs.front().group].accelerator();
  if (profile == nullptr || profile->collectives.empty() || layout.placement.runs.size() > 1) {
    return group;
  }
  std::set<int> nodes;
  for (int d = 0; d < layout.data; ++d) nodes.insert(seat_of(cluster_, layout, {0, d, 0}).node);
  group.profile = profile;
  group.nodes = static_cast<int>(nodes.size());
  return group;
}

// Gradients of each stage among the data replicas; many stages are alike. Tensor by tensor, each
// goes round a ring to its owner and comes back.
std::vector<double> StepModel::reduction_seconds(const PlacedLayout& layout,
                                                 const std::vector<Stage>& stages) {
  std::vector<double> seconds = stage_parameters(job_.model, layout, stages);
  if (measured(layout) || !layout.trains() || layout.data == 1) {
    return std::vector<double>(seconds.size(), 0);  // a profile has it in the step's end
  }
  using Collective = AcceleratorProfile::Collective;
  const ReductionBytes bytes = reduction_bytes(layout);
  const DataGroup group = data_group(layout);
  const int shards = optimizer_shards(execution_, layout);
  DataGroup among = group;
  if (bytes.among_shards > 0) {
    PlacedLayout sharing = layout;
    sharing.data = shards;
    among = data_group(sharing);
  }
  const bool by_tensor = layout.optimizer_sharding > 0 && !execution_.sharding_buckets;
  double before = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    const double parameters = seconds[s];
    const bool as_before =
        s > 0 && parameters == before && stages[s].layers == stages[s - 1].layers;
    before = parameters;
    if (as_before) {
      seconds[s] = seconds[s - 1];
      continue;
    }
    const auto taken = [&](const DataGroup& ranks, Collective kind, double of_parameter) {
      return of_parameter > 0 ? ranks.seconds(kind, of_parameter * parameters) : 0;
    };
    seconds[s] = taken(group, Collective::all_reduce, bytes.summed) +
                 taken(group, Collective::scatter_gather, bytes.scattered) +
                 taken(among, Collective::scatter_gather, bytes.among_shards);
    if (!by_tensor) continue;
    const int tensors = stages[s].layers * layer_tensors(job_.model);
    seconds[s] += 2.0 * tensors * (shards - 1) * among.path.latency_s;
  }
  return seconds;
}

// What a stage's own last backward hides of its reduction: layers are reduced as their gradients
// come, so all but the last layer's share can be under way when the backward ends.
double StepModel::hidden_reduction(const Stage& stage, double backward, double seconds) const {
  if (!execution_.overlap_gradients) return 0;
  const double layers = std::max(1, stage.layers);
  return std::min(seconds, backward) * (layers - 1) / layers;
}

// By pipeline rank: when its gradients are reduced, chunk after chunk in the order in which they
// get their last gradients. With overlap a chunk's first layers may be reduced during its last
// backward, once those of the chunk before it are, and its last one after that.
std::vector<double> StepModel::reductions_end(const PlacedLayout& layout,
                                              const std::vector<Stage>& stages,
                                              const Timing& timing) {
  const std::vector<double> reductions = reduction_seconds(layout, stages);
  struct Chunk {
    double last_gradient = 0;
    double seconds = 0;  // to reduce it
    double ahead = 0;    // of the last gradient comes the first that can be reduced
    double hidden = 0;
  };
  std::vector<std::vector<Chunk>> queues(static_cast<size_t>(layout.pipeline));
  const double pace = this->pace(layout);
  const bool split = splits(layout);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    const double backward =
        pace *
        stage_seconds(model_seconds(layout, stages[s].pipeline_rank), stages[s], split).backward();
    queues[rank].push_back({timing.last_gradient[s], reductions[s],
                            hidden_reduction(stages[s], backward, kForever),
                            hidden_reduction(stages[s], backward, reductions[s])});
  }
  std::vector<double> ends;
  for (std::vector<Chunk>& queue : queues) {
    std::stable_sort(queue.begin(), queue.end(), [](const Chunk& a, const Chunk& b) {
      return a.last_gradient < b.last_gradient;
    });
    double now = execution_.overlap_gradients ? 0 : queue.back().last_gradient;
    for (const Chunk& chunk : queue) {
      now = std::max(now, chunk.last_gradient - chunk.ahead) + chunk.seconds;
      now = std::max(now, chunk.last_gradient + chunk.seconds - chunk.hidden);
    }
    ends.push_back(now);
  }
  return ends;
}

// The two copies of a tied embedding agree on their gradient.
double StepModel::tied_bytes(const Layout& layout, const std::vector<Stage>& stages) const {
  const bool together = stages.front().pipeline_rank == stages.back().pipeline_rank;
  if (!job_.model.tied_embeddings || together || !layout.trains()) return 0;
  return static_cast<double>(largest_share(job_.model, layout.tensor).vocab) * job_.model.hidden *
         gradient_bytes(job_.training.dtype, execution_);
}

double StepModel::tied_reduction_seconds(const PlacedLayout& layout,
                                         const std::vector<Stage>& stages) {
  const double table = tied_bytes(layout, stages);
  return table > 0 ? all_reduce_seconds(2, table, pipeline_paths(layout).ends) : 0;
}

}  // namespace trireme
