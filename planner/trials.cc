#include "planner/trials.h"

#include <limits>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

// Interleaved groups that are tried for a layout. Longer ones gain next to nothing and hold ever
// more activations.
constexpr size_t kMostGroups = 8;

}  // namespace

std::vector<std::optional<int>> ScheduleTrials::groups_of(const Layout& layout) const {
  if (options_.schedule) return {std::nullopt};
  // Where memory does not matter the shortest is what programs do.
  const size_t most = options_.any_memory ? 1 : kMostGroups;
  return groups_to_try(layout.schedule, layout.pipeline, layout.micro_batches, most);
}

std::shared_ptr<const Schedule> ScheduleTrials::built(const Layout& layout,
                                                      const std::optional<int>& group) {
  return options_.schedule ? options_.schedule : schedules_.get(layout, group);
}

std::optional<ScheduleTrials::Choice> ScheduleTrials::fastest(const PlacedLayout& layout,
                                                              const std::vector<Stage>& stages,
                                                              double most) {
  std::optional<Choice> best;
  bool first = true;
  for (const std::optional<int>& group : groups_of(layout)) {
    const auto schedule = built(layout, group);
    if (!first && !options_.any_memory &&
        worst_miss(layout, model_.memory(layout, stages, *schedule)).second > 0) {
      break;  // longer groups hold more
    }
    first = false;
    const double least = best ? best->seconds : most;
    const auto seconds = model_.seconds_within(layout, stages, schedule, least);
    if (!seconds) continue;
    if (!best || *seconds * (1 + 1e-9) < least) best = {group, *seconds};
  }
  return best;
}

std::pair<size_t, double> ScheduleTrials::worst_miss(const PlacedLayout& layout,
                                                     const std::vector<MemoryParts>& memory) const {
  size_t worst = 0;
  double most = -std::numeric_limits<double>::infinity();
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    const double there = model_.device_memory(layout, static_cast<int>(rank));
    const double missing = memory[rank].total() - there;
    if (missing <= most) continue;
    most = missing;
    worst = rank;
  }
  return {worst, most};
}

}  // namespace trireme
