#pragma once

#include <cstdint>

#include "planner/synthesis/flow.h"
#include "planner/synthesis/lower_bound.h"

namespace trireme {

// Branch and bound for small flows: places ops in the order of their starts, each as early as it
// can, in every way that could end earlier than `makespan`, the time of `programs`. Leaves the best
// in both. A branch ends where what is left, by the tails and by the work of every rank, cannot
// beat the best; or where a rank idles although an op would fit into the gap (active schedules:
// Giffler and Thompson 1960).
//
// True if every branch was closed: then no schedule of this flow ends earlier than `makespan`.
// False if `effort`, counted in ops looked at, was used up first, or if some op takes no time,
// which leaves the order of starts open.
bool improve_exactly(const Flow& flow, const Windows& windows, Programs& programs, double& makespan,
                     int64_t& effort);

}  // namespace trireme
