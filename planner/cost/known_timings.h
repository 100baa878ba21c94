#pragma once

#include <deque>
#include <memory>
#include <optional>

#include "planner/simulator.h"

namespace trireme {

// Remembers the last few timings. Layouts that differ only in how replicas are placed or optimizer
// state is sharded ask for the same ones one after the other. Not shared by threads.
class KnownTimings {
 public:
  // As `timing_within`.
  std::optional<Timing> within(const std::shared_ptr<const Schedule>& schedule, const Costs& costs,
                               double most);

 private:
  struct Known {
    std::weak_ptr<const Schedule> schedule;  // others decide how long it is kept
    Costs costs;
    double most = 0;
    std::optional<Timing> timing;  // none: it takes longer than `most`
  };

  std::deque<Known> known_;  // the last one first
};

}  // namespace trireme
