#pragma once

#include "planner/plan/plan.h"
#include "planner/simulator.h"

namespace trireme {

// Op costs to draw a plan with: in proportion to the FLOPs of each stage (forward 1, input and
// weight gradient 1 each, plus recomputation), without hops, scaled so that the step's pipeline
// takes as long as the plan predicts. A plan keeps no costs of single ops.
Costs drawing_costs(const Plan& plan);

}  // namespace trireme
