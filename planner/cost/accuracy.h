#pragma once

#include <string>
#include <vector>

#include "planner/plan/plan.h"

namespace trireme {

// How far a predicted step may be off, learned from published runs (docs/planner.md, "Accuracy").
struct Accuracy {
  int runs = 0;     // published runs of this class of device that the model was held to
  double band = 0;  // share of the step: nine of ten of those runs lie within
  std::vector<std::string> doubts;  // why this plan's ground is weaker than theirs; sentences
};

// CPU slots have no such runs: `runs` is 0, the band that of unknown devices, and `doubts` says so;
// with a profile it is that of layouts which were profiled and run on one machine.
Accuracy accuracy_of(const Plan& plan);

}  // namespace trireme
