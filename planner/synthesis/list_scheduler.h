#pragma once

#include <vector>

#include "planner/synthesis/flow.h"

namespace trireme {

// How a rank chooses among the ops that it could run next.
struct ListRule {
  std::vector<double> keys;   // by op (Flow::op): the smallest goes first
  std::vector<double> depth;  // by rank: most held at once, at most the flow's limit
  double patience = 0;        // how long a rank stays idle for an op with a smaller key, as a share
                              // of the time that the op at hand takes
};

// Builds programs by walking through time: the rank that can start an op first takes the op of
// smallest key that it could start by then, or soon (patience). Never gets stuck: a
// micro-batch is taken in only if every stage of the rank that has none can still take one, so the
// oldest micro-batch can always go on. Needs a depth of what all stages of the rank hold for one.
// O(ops * (ranks + types per rank)).
Programs list_schedule(const Flow& flow, const ListRule& rule);

}  // namespace trireme
