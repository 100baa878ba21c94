#pragma once

#include <cstddef>
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

// Builds the schedule that a layout names and keeps those asked for last: a search looks at the
// same ones again and again. Threads may share it: each schedule is built by one of them, different
// ones side by side.
class ScheduleCache {
 public:
  static constexpr size_t kMostOps = size_t{4} << 20;  // about 48 MiB

  // Keeps up to so many ops, or the last schedule if that has more.
  explicit ScheduleCache(size_t most_ops = kMostOps) : most_ops_(most_ops) {}

  // With groups of so many micro-batches where the schedule has groups (ScheduleRequest::group).
  // The layout's schedule can have its shape.
  std::shared_ptr<const Schedule> get(const Layout& layout, const std::optional<int>& group);

  size_t ops() const;  // of all that are kept

 private:
  // Layouts that agree in these have the same schedules: name, pipeline, micro-batches, chunks.
  using Key = std::tuple<std::string, int, int, int, std::optional<int>>;
  using Built = std::shared_ptr<const Schedule>;
  struct Entry {
    Key key;
    std::shared_future<Built> schedule;
    std::optional<size_t> ops;  // none while it is being built, which is not forgotten
  };

  // The entry's schedule; where there was none, there is one now that gets the promised one.
  std::optional<std::shared_future<Built>> find(const Key& key, std::promise<Built>& promise);
  void count(const Key& key, size_t ops);
  void forget(const Key& key);

  const size_t most_ops_;
  mutable std::mutex mutex_;  // guards all below
  std::list<Entry> entries_;  // the one asked for last stands first
  std::map<Key, std::list<Entry>::iterator> places_;
  size_t ops_ = 0;
};

}  // namespace trireme
