#include <algorithm>
#include <cmath>
#include <utility>

#include "planner/cost/step.h"
#include "planner/schedules/schedules.h"

namespace trireme {

std::vector<PartTimes> StepModel::part_times(const PlacedLayout& layout) {
  std::vector<PartTimes> times;
  const bool split = splits(layout);
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    times.insert(times.end(), static_cast<size_t>(ranks),
                 {work_of(layout, model.layer.total(split)),
                  work_of(layout, model.embedding.total()), work_of(layout, model.head.total())});
  });
  return times;
}

bool StepModel::splits(const Layout& layout) const {
  return follows_own(layout) ? own_splits_ : splits_backward(layout.schedule);
}

std::vector<Stage> StepModel::fastest_cut(const PlacedLayout& layout) {
  if (follows_own(layout)) return fastest_cut(layout, own_->stages);
  std::vector<std::pair<const ModelSeconds*, int>> kinds;
  for_each_kind(layout,
                [&](const ModelSeconds& model, int ranks) { kinds.emplace_back(&model, ranks); });
  CutOf key{layout.chunks, v_placed(layout.schedule), splits(layout), layout.trains(),
            std::move(kinds)};
  const auto known = cuts_.find(key);
  if (known != cuts_.end()) return known->second;
  constexpr size_t kMost = 4096;
  if (cuts_.size() == kMost) cuts_.clear();
  const auto places = places_of(layout.schedule, layout.pipeline, layout.chunks);
  return cuts_.emplace(std::move(key), fastest_cut(layout, places)).first->second;
}

std::vector<Stage> StepModel::fastest_cut(const PlacedLayout& layout,
                                          const std::vector<StagePlace>& places) {
  if (job_.pins.even_cut.value_or(false)) return even_cut(job_.model.layers, places);
  return cut_layers(job_.model.layers, places, part_times(layout));
}

bool StepModel::cut_may_shrink(const Layout& layout) const {
  return !follows_own(layout) && layout.chunks == 1 && layout.recompute_ranks == 0;
}

std::vector<Stage> StepModel::cut(const PlacedLayout& layout) {
  std::vector<Stage> fastest = fastest_cut(layout);
  if (!cut_may_shrink(layout)) return fastest;
  const CutMemory memory = cut_memory(layout, fastest);
  if (lacks_at_least(layout, memory) <= 0) return fastest;
  return smaller_cut(layout, fastest, memory).value_or(fastest);
}

// A rank that has room for more than its stage takes so many layers more, one that lacks it so many
// less, at what a layer has resident and in all activations that the schedule holds.
std::optional<std::vector<Stage>> StepModel::smaller_cut(const PlacedLayout& layout,
                                                         const std::vector<Stage>& fastest,
                                                         const CutMemory& memory) {
  if (job_.pins.even_cut.value_or(false)) return std::nullopt;
  const std::vector<int> peaks =
      least_peak_activations(layout.schedule, layout.pipeline, layout.chunks, layout.micro_batches);
  const WorkShape shape = work_shape(job_, execution_, layout, layout.recompute);
  const double activation =
      stage_activation_bytes(job_.model, shape, on_cpu(layout), {.layers = 1});
  const double resident_layer = resident(layout).layer;
  std::vector<int> room;
  int64_t all = 0;
  for (int rank = 0; rank < layout.pipeline; ++rank) {
    const auto at = static_cast<size_t>(rank);
    const double layer = resident_layer + peaks[at] * activation;
    const double left = memory.room[at] - peaks[at] * memory.least_activation[at];
    const double layers = fastest[at].layers + std::floor(left / layer);
    room.push_back(static_cast<int>(std::clamp(layers, 0.0, 1.0 * job_.model.layers)));
    all += room.back();
  }
  if (all < job_.model.layers) return std::nullopt;
  const auto places = places_of(layout.schedule, layout.pipeline, layout.chunks);
  return cut_layers_within(job_.model.layers, places, part_times(layout), room);
}

}  // namespace trireme
