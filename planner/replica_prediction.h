#pragma once

#include <vector>

#include "planner/cost/step.h"

namespace trireme {

// What is expected of unequal replicas together, from what is expected of each of their sets (parts
// of one layout, the slowest first): what bounds the step is the first; memory is that of the
// replica that has least room on a pipeline rank, and links are the busiest of any set.
Prediction prediction_of_all(const StepModel& model, const std::vector<PlacedLayout>& parts,
                             const std::vector<Prediction>& of_sets);

}  // namespace trireme
