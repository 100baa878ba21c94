#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "planner/cost/node_kind.h"
#include "planner/plan/layout.h"

namespace trireme {

// The figures of a profile may say that a layer takes nothing, and it is divided by.
inline constexpr double kLeastSeconds = 1e-12;

// Of a layer, at least that.
double seconds_of_layer(const Layout& layout, const ModelSeconds& model);

// How many layers a pipeline rank can do in a time: that of one in any unit, and the most that it
// may have.
struct RankLimit {
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  double layer = 0;
  int most = 0;

  int layers_within(double seconds) const {
    constexpr double kRounding = 1 + 1e-12;
    return static_cast<int>(std::min(1.0 * most, seconds / layer * kRounding));
  }
  double seconds_of_one_more(double seconds) const {
    const int layers = layers_within(seconds);
    return layers < most ? (layers + 1) * layer : kNever;
  }
};

// Brings times that are too early and late enough closer together, to within a share of 1/256.
template <class LateEnough>
void narrow(double& early, double& late, LateEnough late_enough) {
  constexpr double kClose = 1 + 1.0 / 256;
  while (late > early * kClose) {
    const double between = std::sqrt(early * late);
    (late_enough(between) ? late : early) = between;
  }
}

// Ranks that are alike: how many, or how many at most where that is open.
struct RankKind : RankLimit {
  int ranks = 0;
};

// Ranks of fixed kinds and, of the open ones, so many that do most.
struct RankKinds {
  std::vector<RankKind> fixed, open;
  int ranks_of_open = 0;

  int64_t layers_within(double seconds);
  // In which they can do so many layers, when none is split; infinite: never.
  double least_seconds(int layers);
  double least_layer() const {
    double least = RankLimit::kNever;
    for_each([&](const RankKind& kind) { least = std::min(least, kind.layer); });
    return least;
  }

 private:
  template <class Callback>
  void for_each(Callback callback) const {
    std::for_each(fixed.begin(), fixed.end(), callback);
    std::for_each(open.begin(), open.end(), callback);
  }
};

}  // namespace trireme
