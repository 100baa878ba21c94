#pragma once

#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "planner/plan/layout.h"
#include "planner/plan/schedule.h"

namespace trireme {

// Builds the schedule that a layout names and keeps those asked for last, up to some millions of
// ops: a search looks at the same ones again and again. Threads may share it: each schedule is
// built by one of them, different ones side by side.
class ScheduleCache {
 public:
  // With groups of so many micro-batches where the schedule has groups (ScheduleRequest::group).
  // The layout's schedule can have its shape.
  std::shared_ptr<const Schedule> get(const Layout& layout, const std::optional<int>& group);

 private:
  // Layouts that agree in these have the same schedules: name, pipeline, micro-batches, chunks.
  using Key = std::tuple<std::string, int, int, int, std::optional<int>>;
  using Built = std::shared_ptr<const Schedule>;
  struct Entry {
    Key key;
    std::shared_future<Built> schedule;
    size_t ops = 0;  // none while it is being built
  };

  // The entry's schedule; where there was none, there is one now that gets the promised one.
  std::optional<std::shared_future<Built>> find(const Key& key, std::promise<Built>& promise);
  void count(const Key& key, size_t ops);

  std::mutex mutex_;          // guards all below
  std::list<Entry> entries_;  // the one asked for last stands first
  std::map<Key, std::list<Entry>::iterator> places_;
  size_t ops_ = 0;
};

}  // namespace trireme
