#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "planner/placement.h"
#include "planner/plan/plan.h"
#include "planner/search.h"

namespace trireme {

// How much is known of a candidate: more costs more to find out. `degrees` stands for all options,
// `options` for all ways to spread the pipeline over a sequence of node groups, as far as that is
// open, `spread` for all schedules and chunks that complete it, `paths` for the same with what
// messages and reductions take, `cut` for all orders of ranks, `links` for the same with what
// passes over links that ranks share, and for unequal replicas `shares` for all orders and all ways
// to share the micro-batches out; their seconds bound all these from below.
enum class Known { degrees, options, spread, paths, cut, links, shares, exact };

// More than a layout can have completions, pipelines of two kinds of node ways to be spread over
// them, and degrees options: candidates of degrees number what may come of them without a gap too
// few. Where there are more spreads, some have the same numbers.
constexpr int64_t kMostCompletions = int64_t{1} << 16;
constexpr int64_t kMostSpreads = int64_t{1} << 18;
constexpr int64_t kMostOptions = 128;
constexpr int64_t kMostOfDegrees = kMostCompletions * kMostSpreads * kMostOptions;

constexpr double kFirstLook = 1.0 / 256;
constexpr double kGrowth = 16;  // of how far a look goes, from one to the next

struct Candidate {
  // Of unequal replicas as asked of their first set, with a share for each.
  PlacedLayout layout;
  size_t sequence = 0;  // of node groups, which alike replicas lie on
  // Among candidates of equal seconds the first in the order of enumeration is the better one.
  int64_t order = 0;
  double seconds = 0;  // a lower bound, or the prediction
  Known known = Known::degrees;
  size_t settled = 0;              // runs, of options
  int64_t numbers = kMostSpreads;  // there are in the order for ways to spread it
  // A look goes no further than to what surely exceeds the bound by this share, or is enough, which
  // is then the bound; should that become the least, the next one looks further. The spreads of
  // options that are no slower than `found` were found by looks before.
  double further = kFirstLook;
  double found = 0;
  // Of micro-batches, by set or one for all, once the seconds are exact: the fastest that fit.
  std::vector<std::optional<int>> groups = {};
  // Whether its prediction is to tell when ranks hold most.
  bool in_full = false;

  bool unequal() const { return !layout.placement.sets.empty(); }
};

// What a search need not know in more detail. Both only come down, so those of a while ago make for
// more than is needed.
struct Enough {
  double missing = std::numeric_limits<double>::infinity();  // bytes: what lacks no fewer
  double seconds = std::numeric_limits<double>::infinity();  // of a step: what takes longer
};

// A look at a candidate goes no further than to what takes so long.
inline double look_until(const Candidate& candidate, double further, const Enough& enough) {
  const double least = candidate.seconds * (1 + std::min(further, kFirstLook));
  return std::min(candidate.seconds * (1 + further), std::max(enough.seconds, least));
}

// What a closer look at a candidate finds.
struct Look {
  struct Missed {
    double seconds = 0;        // a lower bound of the layout that does not fit
    double at_least = 0;       // bytes that it lacks for any schedule; 0: the miss alone tells
    std::optional<Miss> miss;  // where it may be the closest so far
  };

  std::vector<Candidate> found;      // what takes its place, as far as it may fit
  std::vector<Candidate> set_aside;  // what cannot fit, but was not looked at closely
  std::vector<Missed> missed;
  bool first_simulation = false;
  std::optional<Prediction> prediction;  // of an exact candidate, which then stays as it is
};

}  // namespace trireme
