#pragma once

#include "planner/plan/plan.h"
#include "planner/simulator.h"

namespace trireme {

// Op costs to draw a plan with, in seconds: what it predicts for the ops of each stage and a hop.
// Of a plan that predicts no ops every layer counts the same, and the pipeline takes as long as the
// plan predicts.
Costs drawing_costs(const Plan& plan);

}  // namespace trireme
