#pragma once

#include "planner/schedules/family.h"
#include "planner/schedules/schedules.h"

namespace trireme {

// Of the groups and warm-up depths that the request leaves open, those of least makespan that keep
// the memory limit; on a tie the plain warm-up and the shorter group. The request is one that the
// schedule's definition allows. Throws Error(bad_input) when nothing keeps the limit.
Schedule best_variant(const FamilyMember& member, const ScheduleRequest& request, int chunks);

}  // namespace trireme
