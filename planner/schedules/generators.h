#pragma once

#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// One rank's program from its forwards and backwards: `warm_up` forwards, then one forward and one
// backward in turn until the forwards run out, then the remaining backwards.
std::vector<Op> weave(const std::vector<Op>& forwards, const std::vector<Op>& backwards,
                      int warm_up);

// The generators. Arguments are positive; every backward is a full B.
Schedule naive_schedule(int pipeline, int micro_batches);
Schedule gpipe_schedule(int pipeline, int micro_batches);
Schedule one_forward_one_backward_schedule(int pipeline, int micro_batches);
Schedule interleaved_schedule(int pipeline, int micro_batches, int chunks, int group);

}  // namespace trireme
