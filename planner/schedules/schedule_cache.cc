#include "planner/schedules/schedule_cache.h"

#include <exception>
#include <iterator>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

size_t ops_of(const Schedule& schedule) {
  size_t ops = 0;
  for (const std::vector<Op>& program : schedule.ranks) ops += program.size();
  return ops;
}

}  // namespace

std::shared_ptr<const Schedule> ScheduleCache::get(const Layout& layout,
                                                   const std::optional<int>& group) {
  const Key key{layout.schedule, layout.pipeline, layout.micro_batches, layout.chunks, group};
  std::promise<Built> promise;
  if (const auto known = find(key, promise)) return known->get();
  try {
    auto schedule =
        std::make_shared<const Schedule>(make_schedule({.name = layout.schedule,
                                                        .pipeline = layout.pipeline,
                                                        .micro_batches = layout.micro_batches,
                                                        .chunks = layout.chunks,
                                                        .group = group}));
    promise.set_value(schedule);
    count(key, ops_of(*schedule));
    return schedule;
  } catch (...) {
    forget(key);
    promise.set_exception(std::current_exception());
    throw;
  }
}

size_t ScheduleCache::ops() const {
  const std::lock_guard lock(mutex_);
  return ops_;
}

std::optional<std::shared_future<ScheduleCache::Built>> ScheduleCache::find(
    const Key& key, std::promise<Built>& promise) {
  const std::lock_guard lock(mutex_);
  if (const auto known = places_.find(key); known != places_.end()) {
    entries_.splice(entries_.begin(), entries_, known->second);
    return entries_.front().schedule;
  }
  entries_.push_front({key, promise.get_future().share(), std::nullopt});
  places_.emplace(key, entries_.begin());
  return std::nullopt;
}

void ScheduleCache::count(const Key& key, size_t ops) {
  const std::lock_guard lock(mutex_);
  places_.at(key)->ops = ops;
  ops_ += ops;
  for (auto last = entries_.end(); ops_ > most_ops_ && last != entries_.begin();) {
    const auto entry = std::prev(last);
    if (!entry->ops || entry->key == key) {
      last = entry;
      continue;
    }
    ops_ -= *entry->ops;
    places_.erase(entry->key);
    entries_.erase(entry);
  }
}

void ScheduleCache::forget(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto place = places_.find(key);
  if (place == places_.end()) return;
  ops_ -= place->second->ops.value_or(0);
  entries_.erase(place->second);
  places_.erase(place);
}

}  // namespace trireme
