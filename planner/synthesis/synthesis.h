#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "planner/synthesis/flow.h"
#include "planner/synthesis/lower_bound.h"

namespace trireme {

// Where a search begins, and what it found.
struct Draft {
  std::string name;
  Programs programs;
  double makespan = 0;
};

struct Found {
  Draft best;
  bool optimal = false;  // proven: no schedule of the flow ends earlier
};

// The best programs found for the flow: list scheduling under several rules, forwards and backwards
// in time, then moves along the critical path; small flows are searched exactly. `starts` are legal
// programs to begin from, possibly none; the result is never worse than any of them, and its name
// says what it came from. `effort` counts timed ops; equal arguments give equal results. Ends early
// when `goal`, a lower bound, is reached.
Found synthesize(const Flow& flow, const Windows& windows, std::vector<Draft> starts, double goal,
                 int64_t effort, uint64_t seed);

}  // namespace trireme
