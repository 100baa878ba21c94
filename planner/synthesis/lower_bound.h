#pragma once

#include <vector>

#include "planner/synthesis/flow.h"

namespace trireme {

// By op (Flow::op): how early it can start at best, and how much must still follow its end.
struct Windows {
  std::vector<double> heads;
  std::vector<double> tails;
};

// What holds in every schedule of this flow. An op cannot start before its inputs are there, before
// its rank has done all that must come before it on that rank (each from its own head on), and, if
// it takes an activation, before enough others can have been released for the limit. Tails are the
// heads of the reversed flow.
Windows windows_of(const Flow& flow);

// No schedule of this flow ends earlier: for every rank the preemptive one-machine schedule of its
// ops with those heads and tails (Jackson's rule; Carlier 1982, "The one-machine sequencing
// problem"), the largest of all.
double lower_bound(const Flow& flow, const Windows& windows);

}  // namespace trireme
