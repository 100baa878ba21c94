#include "planner/schedules/schedule_cache.h"

#include <algorithm>

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
  Key key{layout.schedule, layout.pipeline, layout.micro_batches, layout.chunks, group};
  const auto known = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (known != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, known);
    return entries_.front().schedule;
  }
  auto schedule =
      std::make_shared<const Schedule>(make_schedule({.name = layout.schedule,
                                                      .pipeline = layout.pipeline,
                                                      .micro_batches = layout.micro_batches,
                                                      .chunks = layout.chunks,
                                                      .group = group}));
  ops_ += ops_of(*schedule);
  entries_.push_front({std::move(key), schedule});
  while (ops_ > kMostOps && entries_.size() > 1) {
    ops_ -= ops_of(*entries_.back().schedule);
    entries_.pop_back();
  }
  return schedule;
}

}  // namespace trireme
