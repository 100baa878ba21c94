#include "planner/profile/line.h"

#include <algorithm>

namespace trireme {

Line line_through(const std::vector<double>& sizes, double size) {
  if (sizes.size() == 1 || size < sizes.front()) return {0, 0, size / sizes.front(), 0};
  size_t upper = 1;
  while (upper + 1 < sizes.size() && sizes[upper] < size) ++upper;
  const double share = (size - sizes[upper - 1]) / (sizes[upper] - sizes[upper - 1]);
  return {upper - 1, upper, 1 - share, share};
}

StageCost Line::between(const StageCost& at_a, const StageCost& at_b) const {
  const auto value = [&](double p, double q) {
    return std::max(share_b > 1 ? q : 0.0, between(p, q));
  };
  return {value(at_a.forward, at_b.forward), value(at_a.input, at_b.input),
          value(at_a.weight, at_b.weight)};
}

}  // namespace trireme
