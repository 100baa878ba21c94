#pragma once

#include <vector>

#include "planner/synthesis/automatic.h"

namespace trireme {

// A member of the family as built for a request.
struct FamilySchedule {
  std::string name;  // with its parameters
  Schedule schedule;
  double makespan = 0;
};

// Which rank holds more than its limit (by rank, in the unit of Costs::memory); empty if none does.
std::string above_limit(const Schedule& schedule, const Costs& costs,
                        const std::vector<double>& limit);

// Every member of the family that a training step can use, with its groups and warm-ups, that keeps
// the memory limit (by rank), in the order of the family. What cannot be had, and why, goes to
// `considered`, and so does what can with its makespan.
std::vector<FamilySchedule> family_within(const AutoRequest& request,
                                          const std::vector<double>& limit,
                                          std::vector<Considered>& considered);

}  // namespace trireme
