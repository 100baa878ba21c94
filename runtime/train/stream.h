#pragma once

#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// Asynchronous training (PipeDream, Harlap et al. 2018) has no flush: the forwards that begin one
// step run between the backwards that end the step before, so the pipeline stays full. The plan's
// row is one step by itself: n forwards, then a backward and a forward in turn, then n backwards.
//
// The ops of one step of that stream. `filled`: the step before has already run the n first
// forwards of this one. `drain`: leave the pipeline empty at the end instead of running those of
// the next. Micro-batches of odd steps are numbered micro_batches .. 2*micro_batches-1, so that
// those of two neighbouring steps are told apart.
//
// Over the whole stream since the last drain micro-batch i goes forward after the backward of
// micro-batch i-n and before that of i-n+1, hence, with an update after each backward, with weights
// that have seen max(0, i - (n-1)) updates.
std::vector<Op> step_of_stream(const std::vector<Op>& row, int micro_batches, int step, bool filled,
                               bool drain);

}  // namespace trireme
