#pragma once

#include <optional>
#include <string>

#include "planner/plan/plan.h"

namespace trireme {

// The first place where the parts of a plan do not go together: the key of the plan file that is
// wrong, and what was found and expected in words. It proves that whoever executes the plan may
// index by it; whether its schedule is complete and free of deadlock is for the checker
// (planner/checker.h).
struct PlanFault {
  std::string key;
  std::string found_and_expected;
};
std::optional<PlanFault> find_fault(const Plan& plan);

}  // namespace trireme
