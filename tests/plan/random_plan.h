#pragma once

#include <random>

#include "planner/plan/plan.h"

namespace trireme {

// A valid plan with every field drawn from `random`, strings and doubles as awkward as they may be.
Plan random_plan(std::mt19937_64& random);

}  // namespace trireme
