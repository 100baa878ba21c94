#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "planner/plan/layout.h"
#include "planner/plan/schedule.h"

namespace trireme {

// Builds the schedule that a layout names and keeps those asked for last, up to some millions of
// ops: a search looks at the same ones again and again. Not shared by threads.
class ScheduleCache {
 public:
  // With groups of so many micro-batches where the schedule has groups (ScheduleRequest::group).
  // The layout's schedule can have its shape.
  std::shared_ptr<const Schedule> get(const Layout& layout, const std::optional<int>& group);

 private:
  // Layouts that agree in these have the same schedules: name, pipeline, micro-batches, chunks.
  using Key = std::tuple<std::string, int, int, int, std::optional<int>>;
  struct Entry {
    Key key;
    std::shared_ptr<const Schedule> schedule;
  };

  std::list<Entry> entries_;  // the one asked for last stands first
  size_t ops_ = 0;
};

}  // namespace trireme
