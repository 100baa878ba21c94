#include "planner/cost/known_timings.h"

#include <algorithm>

namespace trireme {
namespace {

constexpr size_t kMost = 32;

// Far above what sums of op times are off by, and below what timing_within allows for that: so the
// answer is the same whether the timing was known or not.
constexpr double kRounding = 1 + 1e-10;

bool is_of(const std::weak_ptr<const Schedule>& known, const std::shared_ptr<const Schedule>& one) {
  return !known.owner_before(one) && !one.owner_before(known);
}

// Functions cannot be compared.
bool comparable(const Costs& costs) {
  return !costs.link && !costs.op_time;
}

bool same_times(const Costs& a, const Costs& b) {
  return a.hop == b.hop && a.transfer == b.transfer && a.overlap == b.overlap &&
         a.stages == b.stages;
}

std::optional<Timing> up_to(double most, const std::optional<Timing>& timing) {
  return timing && timing->makespan <= most * kRounding ? timing : std::nullopt;
}

}  // namespace

std::optional<Timing> KnownTimings::within(const std::shared_ptr<const Schedule>& schedule,
                                           const Costs& costs, double most) {
  if (!comparable(costs)) return timing_within(*schedule, costs, most);
  std::unique_lock lock(mutex_);
  if (const Known* known = find(schedule, costs)) {
    if (known->timing) return up_to(most, known->timing);
    if (known->most >= most) return std::nullopt;
  }
  lock.unlock();
  std::optional<Timing> timing = timing_within(*schedule, costs, most);
  lock.lock();
  if (Known* known = find(schedule, costs)) {
    if (!known->timing && known->most < most) {
      known->most = most;
      known->timing = timing;
    }
  } else {
    if (known_.size() == kMost) known_.pop_back();
    known_.push_front({schedule, costs, most, timing});
  }
  return up_to(most, timing);
}

KnownTimings::Known* KnownTimings::find(const std::shared_ptr<const Schedule>& schedule,
                                        const Costs& costs) {
  const auto known = std::find_if(known_.begin(), known_.end(), [&](const Known& entry) {
    return is_of(entry.schedule, schedule) && same_times(entry.costs, costs);
  });
  return known == known_.end() ? nullptr : &*known;
}

}  // namespace trireme
