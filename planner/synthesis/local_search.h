#pragma once

#include <cstdint>
#include <random>

#include "planner/synthesis/flow.h"

namespace trireme {

// Moves ops within a rank's program along the critical path: only there can an exchange end the
// step earlier (the neighbourhoods of job-shop search; Nowicki and Smutnicki 1996). A move is kept
// when it is no worse than the programs were some moves ago (late acceptance; Burke and Bykov
// 2017), so plateaus, of which schedules are full, are crossed.
//
// Improves `programs`, whose makespan is at most the flow's with them, and returns the best
// makespan met. Stops at `goal` or when `effort`, the ops it may time, is used up; what is left
// remains in it. The programs must be legal and stay so.
double improve_programs(const Flow& flow, Programs& programs, double goal, int64_t& effort,
                        std::mt19937_64& random);

}  // namespace trireme
