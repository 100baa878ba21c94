#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "planner/placement.h"

namespace trireme {

// Who takes how many: the micro-batches of each replica, by set.
using Way = std::vector<int64_t>;

// All ways to give every replica of set i one micro-batch or more, at most most[i], so that they
// are `total` in all.
std::vector<Way> ways_to_share(int64_t total, const std::vector<ReplicaSet>& sets, const Way& most);

// The ways to share micro-batches out that may still be faster than what was found. All times are
// steps of sets of replicas.
class OpenShares {
 public:
  struct Open {
    Way way;
    std::vector<double> at_least;  // by set
    double bound = 0;              // of all sets together
  };

  // `grows_from`: with so many micro-batches a set takes no less for more of them, and has no
  // memory for more if it has none for these. Otherwise one number says nothing about another.
  explicit OpenShares(std::optional<int64_t> grows_from) : grows_from_(grows_from) {}

  void add(Open open) { open_.push_back(std::move(open)); }
  // Takes out the way that should be fastest: by its bounds, and by how much the sets of those
  // that were tried exceed theirs.
  std::optional<Open> next();
  // Sets were found to take so long, or more than `most` (infinity); of interest is only what takes
  // less than that.
  void learn(const Open& tried, const std::vector<double>& seconds, double most);

 private:
  double expected(const Open& open) const;

  std::optional<int64_t> grows_from_;
  std::vector<Open> open_;
  std::vector<double> excess_;  // by set; empty: none was tried
};

}  // namespace trireme
