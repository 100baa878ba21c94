#pragma once

#include <vector>

#include "planner/simulator.h"

namespace trireme {

// Machines whose cores several pipeline ranks share.
struct SharedCores {
  std::vector<double> cores;  // by machine
  // By pipeline rank and machine: cores that the ranks of this pipeline rank on that machine keep
  // busy while one of its ops runs.
  std::vector<std::vector<double>> demand;
};

// What each op takes, by pipeline rank and position, when every machine shares its cores evenly
// among what runs at the moment (processor sharing): an op with all cores it can use takes what
// `costs` say; where what runs on a machine asks for more cores than there are, everything there
// runs slower by that ratio, and a rank on several machines as slow as on the worst of them. A rank
// that waits asks for nothing. `simulate` with the result as Costs::op_time gives the same step.
//
// Same terms as `simulate`. Time: ops times ranks.
std::vector<std::vector<double>> shared_op_seconds(const Schedule& schedule, const Costs& costs,
                                                   const SharedCores& machines);

}  // namespace trireme
