#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "planner/simulator.h"

namespace trireme {

// Remembers the last few timings. Layouts that differ only in how replicas are placed or optimizer
// state is sharded ask for the same ones one after the other, and so does the prediction of what a
// search has found. Threads may share it.
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

  // Null: unknown.
  Known* find(const std::shared_ptr<const Schedule>& schedule, const Costs& costs);

  std::mutex mutex_;         // guards what follows
  std::deque<Known> known_;  // the last one first
};

}  // namespace trireme
