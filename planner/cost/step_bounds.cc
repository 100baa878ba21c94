#include <algorithm>
#include <limits>
#include <vector>

#include "planner/cost/step.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

// Of a layer; the figures of a profile may say that it takes nothing, and it is divided by.
double seconds_of_layer(const Layout& layout, const ModelSeconds& model) {
  constexpr double kLeast = 1e-12;
  return std::max(work_of(layout, model.layer.total()), kLeast);
}

// Consecutive pipeline ranks that take the same, and the layers of each.
struct RankKind {
  int ranks = 0;
  double layer = 0;
  int layers = 0;
};

// In which they can do so many layers, when none is split: the counts that fit into the time in
// which they could, were layers divisible, and then the kind that is through with one more first.
double whole_layers_seconds(std::vector<RankKind>& kinds, int layers, double per_second) {
  int held = 0;
  for (RankKind& kind : kinds) {
    kind.layers = static_cast<int>(layers / per_second / kind.layer);
    held += kind.layers * kind.ranks;
  }
  double seconds = 0;
  while (held < layers) {
    const auto with_one_more = [](const RankKind& kind) { return (kind.layers + 1) * kind.layer; };
    const auto next = std::min_element(
        kinds.begin(), kinds.end(),
        [&](const auto& a, const auto& b) { return with_one_more(a) < with_one_more(b); });
    seconds = with_one_more(*next);
    ++next->layers;
    held += next->ranks;
  }
  return seconds;
}

}  // namespace

// However the layers are cut, a rank that has T seconds for its work holds at most (T less its
// embedding or head) / (time of a layer in all micro-batches) of them, and all ranks together hold
// all. Rank r does not have the time in which the first micro-batch passes the stages before its
// own first, number r: the embedding, and a layer on each but stage 0. And no rank holds part of a
// layer.
QuickBound StepModel::quick_bounds(const PlacedLayout& layout) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double per_second = 0, embedding = kNone, head = kNone;
  double first_forward = kNone, layer_forward = kNone;
  std::vector<RankKind> kinds;
  kinds.reserve(2 * layout.placement.runs.size());
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    const double layer = seconds_of_layer(layout, model);
    kinds.push_back({ranks, layer});
    per_second += ranks / layer;
    embedding = std::min(embedding, work_of(layout, model.embedding.total()) / layer);
    head = std::min(head, work_of(layout, model.head.total()) / layer);
    first_forward = std::min(first_forward, model.embedding.total().forward);
    layer_forward = std::min(layer_forward, model.layer.total().forward);
  });
  const double pace = this->pace(layout);
  const int layers = job_.model.layers;
  QuickBound bound;
  bound.average = pace * (layers + embedding + head) / per_second;
  bound.slowest = std::max(bound.average, pace * whole_layers_seconds(kinds, layers, per_second));
  if (const MeasuredStep* profile = measured(layout)) {
    bound.slowest = std::max(bound.slowest, profile->average_bound(layout, bound.average));
    return bound;
  }
  if (own_ != nullptr) return bound;  // its stages may lie anywhere
  double waits = 0;                   // by rank, in layers of that rank
  double first = 0;
  for (const RankKind& kind : kinds) {
    const double ranks = kind.ranks, last = first + ranks - 1;
    const double behind_0 = first == 0 ? ranks - 1 : ranks;
    const double layers_before = (first + last) / 2 * ranks - behind_0;  // sum of r - 1 for r > 0
    waits += (behind_0 * first_forward + layers_before * layer_forward) / kind.layer;
    first += ranks;
  }
  bound.waits = pace * waits / per_second;
  return bound;
}

CutTimes StepModel::cut_times(const PlacedLayout& layout, const std::vector<Stage>& stages) {
  CutTimes times{costs(layout, stages), {}, {}, optimizer_seconds(layout, stages)};
  add_reductions(layout, stages, times);
  return times;
}

void StepModel::move(const PlacedLayout& layout, const std::vector<Stage>& stages,
                     CutTimes& times) {
  if (!execution_.overlap_pipeline) {
    times.costs = costs(layout, stages);
  } else if (!measured(layout)) {
    add_messages(layout, stages, times.costs);
  }
  add_reductions(layout, stages, times);
}

// A rank's gradients of its last chunk to finish are there after all its work, and still have to
// be reduced.
void StepModel::add_reductions(const PlacedLayout& layout, const std::vector<Stage>& stages,
                               CutTimes& times) {
  const std::vector<double> reductions = reduction_seconds(layout, stages);
  times.work.assign(static_cast<size_t>(layout.pipeline), 0);
  times.reduction.assign(static_cast<size_t>(layout.pipeline), 1e30);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    const StageCost& cost = times.costs.stages[s];
    times.work[rank] += work_of(layout, cost);
    const double hidden = hidden_reduction(stages[s], cost.backward(), reductions[s]);
    times.reduction[rank] = std::min(times.reduction[rank], reductions[s] - hidden);
  }
}

StepBound StepModel::bound_on_cut(const PlacedLayout& layout, const CutTimes& times,
                                  std::optional<int> at) const {
  StepBound bound(at);
  if (follows_own(layout)) {
    bound.add(makespan_of(*own_, times.costs), 0);
  } else {
    bound = schedule_bound(layout.schedule, layout.pipeline, layout.chunks, times.costs, at);
  }
  // A message for every chunk and micro-batch goes from each rank to the next, and back.
  if (layout.pipeline > 1) bound.add(times.costs.hop, times.costs.transfer * layout.chunks);
  // No rank has all its gradients summed earlier.
  for (size_t rank = 0; rank < times.work.size(); ++rank) {
    bound.add(times.reduction[rank], times.work[rank]);
  }
  bound.then(times.optimizer);
  return bound;
}

double StepModel::cut_bound(const PlacedLayout& layout, const CutTimes& times) const {
  const double seconds =
      bound_on_cut(layout, times, layout.micro_batches).seconds(layout.micro_batches);
  const MeasuredStep* profile = measured(layout);
  if (profile == nullptr) return seconds;
  std::vector<double> work = times.work;
  for (double& of_rank : work) of_rank *= layout.micro_batches;
  return std::max(seconds, profile->work_bound(layout, work) + times.optimizer);
}

}  // namespace trireme
