#pragma once

#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"

namespace trireme {

// The ops of a schedule placed anew for hops that it does not know of, for schedules whose order is
// a pattern without a warm-up to deepen (zb-v, v-half, v-min). Each is legal, has the schedule's
// name and stages, and splits its backwards. A rank takes what the schedule would have run
// first, or gradients before forwards, of what has arrived; weight gradients fill the gaps. It
// holds as much as the schedule's fullest rank, or, up to `most`[rank] activations, as much more as
// half the way and the whole way of a micro-batch to the last stage and back needs:
//   ceil(2 (stages - 1) hop / time of a rank's ops on one micro-batch)   micro-batches.
std::vector<Schedule> placed_anew(const Schedule& schedule, const Costs& costs,
                                  const std::vector<int>& most);

}  // namespace trireme
