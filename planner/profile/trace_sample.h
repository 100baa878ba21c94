#pragma once

#include <map>
#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "planner/profile/fit.h"

namespace trireme {

// Of a run: connections are new, caches and clocks cold.
inline constexpr int kWarmUpSteps = 2;

// What a run of `plan` showed, from the traces of all its ranks and the seconds of each step
// (`step_seconds`, by step). Steps that warm up are not counted; of the others, medians. Of
// a step, the mean over its micro-batches without the first, in which weights are packed; that
// packing is part of other_seconds. Throws Error(bad_input) for traces that cannot be read or lack
// steps.
//
// Of one pipeline rank and a schedule that splits the backward (F, I and W ops).
RunSample run_sample(const RunDirectory& directory, const Plan& plan,
                     const std::map<int, double>& step_seconds);

// Of two pipeline ranks: how long after the end of an op the rank that had waited for its output
// started, and how long sending kept the rank from computing.
MessageSample message_sample(const RunDirectory& directory, const Plan& plan);

double median(std::vector<double> values);

}  // namespace trireme
