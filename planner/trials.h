#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "planner/cost/step.h"
#include "planner/schedules/schedule_cache.h"
#include "planner/search.h"

namespace trireme {

// Tries the schedules that a layout may follow: one, or of interleaved's groups the shortest few.
// Keeps references to what it is made from. Not shared by threads.
class ScheduleTrials {
 public:
  ScheduleTrials(StepModel& model, const PlanOptions& options, ScheduleCache& schedules)
      : model_(model), options_(options), schedules_(schedules) {}

  // Micro-batches of a group where the schedule has groups; the first holds least.
  std::vector<std::optional<int>> groups_of(const Layout& layout) const;
  std::shared_ptr<const Schedule> built(const Layout& layout, const std::optional<int>& group);

  struct Choice {
    std::optional<int> group;
    double seconds = 0;  // of a step
  };
  // The fastest that fits, if it takes at most so long. That the first fits is taken for granted.
  std::optional<Choice> fastest(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                double most);

  // The pipeline rank whose device lacks most, and how many bytes; less than none when all is well.
  std::pair<size_t, double> worst_miss(const PlacedLayout& layout,
                                       const std::vector<MemoryParts>& memory) const;

 private:
  StepModel& model_;
  const PlanOptions& options_;
  ScheduleCache& schedules_;
};

}  // namespace trireme
