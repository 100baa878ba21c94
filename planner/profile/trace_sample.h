#pragma once

#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "planner/profile/fit.h"

namespace trireme {

// Of a run: connections are new, caches and clocks cold.
inline constexpr int kWarmUpSteps = 2;

// What a run of `plan` showed whose ranks had so many threads each, from the traces of all ranks.
// Steps that warm up are not counted; of the others, medians. Of a step, the mean over its
// micro-batches without the first quarter, in which weights are packed and caches are cold; what
// that takes more is part of other_seconds.
//
// Where a rank waits for nothing, its seconds are processor time, which hardly depends on what else
// the machine does: in the ops of a single thread without tensor peers, and beside all ops. Such
// ops count by as much longer as the step was than its ranks' processor time: ranks that no op
// makes wait for each other wait for the slowest of them at the end. Other ops are timed by the
// clock. Throws Error(bad_input) for traces that cannot be read or lack steps.
//
// Of one pipeline rank and a schedule that splits the backward (F, I and W ops).
RunSample run_sample(const RunDirectory& directory, const Plan& plan, int threads);

// Of two pipeline ranks: how long after the end of an op the rank that had waited for its output
// started (the lower quartile: a waiting rank that is woken late was kept from its core), and what
// the ranks spend beside their ops.
MessageSample message_sample(const RunDirectory& directory, const Plan& plan);

}  // namespace trireme
