#pragma once

#include <string>
#include <vector>

#include "planner/simulator.h"

namespace trireme {

// Numbers as the command line and small CSV files give them. All throw Error(bad_input) with the
// option or file, row and cell, what was found and what was expected.

// "f=1,i=1,w=1,comm=0", any part of it.
Costs parse_costs(const std::string& text);

// One row per global stage: forward, input gradient, weight gradient. A first row of column names
// (f, i, w) allows any order.
std::vector<StageCost> read_stage_costs(const std::string& path);

// "8" for every rank, or "8,8,6,4": one for each.
std::vector<int> parse_limits(const std::string& text);

}  // namespace trireme
