#include <algorithm>
#include <limits>

#include "planner/cost/step.h"
#include "planner/schedules/schedules.h"

namespace trireme {

// However the layers are cut, a rank that has T seconds for its work holds at most (T less its
// embedding or head) / (time of a layer in all micro-batches) of them, and all ranks together hold
// all. Rank r does not have the time in which the first micro-batch passes the stages before its
// own first, number r: the embedding, and a layer on each but stage 0.
double StepModel::quick_bound(const PlacedLayout& layout) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double per_second = 0, embedding = kNone, head = kNone;
  double first_forward = kNone, layer_forward = kNone;
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    const double layer = work_of(layout, model.layer.total());
    per_second += ranks / layer;
    embedding = std::min(embedding, work_of(layout, model.embedding.total()) / layer);
    head = std::min(head, work_of(layout, model.head.total()) / layer);
    first_forward = std::min(first_forward, model.embedding.total().forward);
    layer_forward = std::min(layer_forward, model.layer.total().forward);
  });
  const double average =
      pace(layout) * layout.micro_batches * (job_.model.layers + embedding + head) / per_second;
  if (const MeasuredStep* profile = measured(layout)) {
    return std::max(average, profile->average_bound(layout, average));
  }
  if (own_ != nullptr) return average;  // its stages may lie anywhere
  double waits = 0;                     // by rank, in layers of that rank
  double first = 0;
  for_each_kind(layout, [&](const ModelSeconds& model, int count) {
    const double ranks = count, last = first + ranks - 1;
    const double behind_0 = first == 0 ? ranks - 1 : ranks;
    const double layers = (first + last) / 2 * ranks - behind_0;  // sum of r - 1, where r > 0
    waits +=
        (behind_0 * first_forward + layers * layer_forward) / work_of(layout, model.layer.total());
    first += ranks;
  });
  return average + pace(layout) * waits / per_second;
}

CutTimes StepModel::cut_times(const PlacedLayout& layout, const std::vector<Stage>& stages) {
  CutTimes times{costs(layout, stages), 0, optimizer_seconds(layout, stages)};
  times.reduced = least_reduced(layout, stages, times.costs);
  return times;
}

void StepModel::move(const PlacedLayout& layout, const std::vector<Stage>& stages,
                     CutTimes& times) {
  if (!execution_.overlap_pipeline) {
    times.costs = costs(layout, stages);
  } else if (!measured(layout)) {
    add_messages(layout, stages, times.costs);
  }
  times.reduced = least_reduced(layout, stages, times.costs);
}

double StepModel::least_reduced(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                const Costs& costs) {
  const std::vector<double> reductions = reduction_seconds(layout, stages);
  // A rank's gradients of its last chunk to finish are there after all its work, and still have to
  // be reduced.
  std::vector<double> work(static_cast<size_t>(layout.pipeline), 0);
  std::vector<double> least(static_cast<size_t>(layout.pipeline), 1e30);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    const StageCost& cost = costs.stages[s];
    work[rank] += layout.micro_batches * work_of(layout, cost);
    const double hidden = hidden_reduction(stages[s], cost.backward(), reductions[s]);
    least[rank] = std::min(least[rank], reductions[s] - hidden);
  }
  double reduced = 0;
  for (size_t rank = 0; rank < work.size(); ++rank) {
    reduced = std::max(reduced, work[rank] + least[rank]);
  }
  const MeasuredStep* profile = measured(layout);
  return profile == nullptr ? reduced : std::max(reduced, profile->work_bound(layout, work));
}

double StepModel::cut_bound(const PlacedLayout& layout, const CutTimes& times) const {
  const double pipeline = follows_own(layout)
                              ? makespan_of(*own_, times.costs)
                              : schedule_bound(layout.schedule, layout.pipeline, layout.chunks,
                                               layout.micro_batches, times.costs);
  return std::max(pipeline, times.reduced) + times.optimizer;
}

}  // namespace trireme
