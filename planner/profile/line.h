#pragma once

#include <cstddef>
#include <vector>

#include "planner/simulator.h"

namespace trireme {

// Where a size lies among those that were measured, by position: on the line through two of them,
// so many times the one and so many times the other.
struct Line {
  size_t a = 0, b = 0;
  double share_a = 1, share_b = 0;

  double between(double at_a, double at_b) const { return share_a * at_a + share_b * at_b; }
  // Part by part; nothing takes less than nothing, and beyond `b` nothing less than at `b`.
  StageCost between(const StageCost& at_a, const StageCost& at_b) const;
};

// `sizes`: measured ones, ascending, at least one. Between two of them it is their line, beyond the
// last that through the last two; below the smallest, and with one alone, in proportion to that
// one.
Line line_through(const std::vector<double>& sizes, double size);

}  // namespace trireme
