#pragma once

#include "planner/search.h"

namespace trireme {

// The plan again with a schedule that a search over orders (synthesis/automatic.h) finds for its
// very stage times, messages and memory, where that makes the step faster; else as it was. A note
// says which, and how far from the lower bound of its placements the pipeline is. Degrees,
// micro-batch and options stay; `job`, `cluster` and `options` are those of the plan. Pure and
// deterministic, but takes about a second where the schedule at hand is not proven best.
PlanResult improve_schedule(const Job& job, const Cluster& cluster, const PlanOptions& options,
                            PlanResult result);

}  // namespace trireme
