#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "planner/plan/schedule.h"

namespace trireme {

// Where a program first goes wrong.
struct OpPosition {
  int rank = 0;
  size_t position = 0;
  bool operator==(const OpPosition&) const = default;
};

struct Verdict {
  bool legal = false;
  std::string reason;                     // one sentence; empty when legal
  std::optional<OpPosition> first_wrong;  // the op to look at, where there is one
  std::string
      grid;  // for a cyclic wait: ranks x steps as text, the waiting ops and the culprit marked
};

// Proves a schedule, or says why it is none:
//   placement   every stage has one place, every op stands on its stage's rank
//   counts      every stage does each micro-batch exactly once: one F and either one B or one I and
//   one W. A schedule
//               without any backward op is legal (inference).
//   order       on each rank, no op stands before one of the same rank whose output it takes
//   no deadlock with blocking receives in program order and asynchronous sends, every op runs
// Takes any Schedule whatever, never throws, and is linear in the number of ops.
Verdict check_schedule(const Schedule& schedule);

}  // namespace trireme
