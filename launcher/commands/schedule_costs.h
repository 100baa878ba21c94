#pragma once

#include <string>
#include <vector>

#include "planner/simulator.h"

namespace trireme {

// Numbers as the command line and small CSV files give them. All throw Error(bad_input) with the
// option or file, row and cell, what was found and what was expected.

// "f=1,i=1,w=1,comm=0,transfer=0,overlap=0", any part of it: the times of one chunk op, of a hop
// between ranks, how long a message occupies its link, and the share of an overlapped pair's
// shorter op that the pair hides.
Costs parse_costs(const std::string& text);

// One row per global stage into `costs`: forward, input gradient, weight gradient (f,i,w), and
// where they are given what the stage holds for a micro-batch from its F on and after its I
// (activation,kept). A first row of column names allows any order.
void read_stage_costs(const std::string& path, Costs& costs);

// "8" for every rank, or "8,8,6,4": one for each.
std::vector<double> parse_limits(const std::string& text);

}  // namespace trireme
