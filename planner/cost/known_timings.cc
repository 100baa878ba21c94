#include "planner/cost/known_timings.h"

#include <algorithm>

namespace trireme {
namespace {

constexpr size_t kMost = 16;

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

}  // namespace

std::optional<Timing> KnownTimings::within(const std::shared_ptr<const Schedule>& schedule,
                                           const Costs& costs, double most) {
  if (!comparable(costs)) return timing_within(*schedule, costs, most);
  auto known = std::find_if(known_.begin(), known_.end(), [&](const Known& entry) {
    return is_of(entry.schedule, schedule) && same_times(entry.costs, costs);
  });
  if (known == known_.end()) {
    if (known_.size() == kMost) known_.pop_back();
    known_.push_front({schedule, costs, most, timing_within(*schedule, costs, most)});
    known = known_.begin();
  } else if (!known->timing && known->most < most) {
    known->timing = timing_within(*schedule, costs, most);
    known->most = most;
  }
  if (known->timing && known->timing->makespan > most * kRounding) return std::nullopt;
  return known->timing;
}

}  // namespace trireme
