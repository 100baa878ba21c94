#include "planner/schedules/schedule_cache.h"

#include <utility>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

constexpr size_t kMostOps = size_t{4} << 20;  // about 48 MiB

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
  auto schedule =
      std::make_shared<const Schedule>(make_schedule({.name = layout.schedule,
                                                      .pipeline = layout.pipeline,
                                                      .micro_batches = layout.micro_batches,
                                                      .chunks = layout.chunks,
                                                      .group = group}));
  promise.set_value(schedule);
  count(key, ops_of(*schedule));
  return schedule;
}

std::optional<std::shared_future<ScheduleCache::Built>> ScheduleCache::find(
    const Key& key, std::promise<Built>& promise) {
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = places_.try_emplace(key);
  if (!is_new) {
    entries_.splice(entries_.begin(), entries_, place->second);
    return entries_.front().schedule;
  }
  entries_.push_front({key, promise.get_future().share()});
  place->second = entries_.begin();
  return std::nullopt;
}

void ScheduleCache::count(const Key& key, size_t ops) {
  const std::lock_guard lock(mutex_);
  const auto place = places_.find(key);
  if (place == places_.end()) return;  // forgotten before it was built
  place->second->ops = ops;
  ops_ += ops;
  while (ops_ > kMostOps && entries_.size() > 1) {
    ops_ -= entries_.back().ops;
    places_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

}  // namespace trireme
