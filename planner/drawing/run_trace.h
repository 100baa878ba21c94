#pragma once

#include <map>
#include <string>
#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "planner/simulator.h"

namespace trireme {

// When the ops of one rank ran, in the order of its program, in seconds of the clock that the rank
// traced with.
using RankStep = std::vector<OpTimes>;

// What the pipeline that holds global rank `member` really did in each step that all its ranks
// traced: by step (as the trace counts them), then by pipeline rank. Reads the ranks' trace files.
// Throws Error(bad_input) with the file's name when one cannot be read, is no trace, or does not
// have the plan's ops in the plan's order.
std::map<int, std::vector<RankStep>> read_run_trace(const RunDirectory& directory, const Plan& plan,
                                                    Rank member);

// The same step on a clock that starts with its first op.
std::vector<RankStep> from_zero(std::vector<RankStep> step);

}  // namespace trireme
