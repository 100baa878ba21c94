#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace trireme {

// Who takes how many: the micro-batches of each replica, by set of replicas.
using Way = std::vector<int64_t>;

// Finds the way to share a step's micro-batches out among sets of replicas whose slowest set is
// done first, while what a set takes for a number of micro-batches is known for few numbers and
// bounded from below for all. What sets take does not depend on each other.
class Shares {
 public:
  struct Set {
    int64_t replicas = 1;
    int64_t fewest = 1;           // micro-batches of a replica
    std::vector<double> seconds;  // of a step with so many, one more, and so on: at least
    double excess = 0;            // and by how much it should be longer
  };

  // All take `total` micro-batches together. `grows_from`: with so many a set takes no less for
  // more of them; otherwise one number says nothing about another.
  Shares(int64_t total, const std::vector<Set>& sets, std::optional<int64_t> grows_from);

  // A way that may take less than `below`; none: there is none. If not all its numbers are known,
  // these are worth knowing: it should be the fastest. Else it is.
  std::optional<Way> next(double below) const;

  // A set takes so long; infinity: `below` or longer.
  void learn(size_t set, int64_t micro_batches, double seconds, double below);
  // By how much a set exceeded its bound when that was last learnt.
  double excess(size_t set) const { return sets_[set].excess; }

 private:
  struct Number {
    double least = 0;  // seconds of a step, at least
    double bound = 0;  // the same when nothing was known yet
    bool known = false;
  };
  struct Numbers {
    int64_t replicas = 1;
    int64_t fewest = 1;
    std::vector<Number> of;  // micro-batches: fewest, one more, and so on
    double excess = 0;

    double expected(const Number& number) const;
  };
  using Times = std::vector<std::vector<double>>;  // by set and number
  class Counts;

  template <class TimeOf>
  Times times_of(TimeOf time_of) const;
  // By set: how many of the micro-batches beyond the fewest the sets before it may take, together,
  // when none takes longer; last of all the sets.
  std::vector<Counts> within_reach(const Times& times, double seconds) const;
  // In all the times of finite ones, the way that takes least.
  std::optional<Way> fastest(const Times& times) const;
  double slowest_set(const Way& way) const;

  int64_t beyond_fewest_ = 0;  // of all together
  std::vector<Numbers> sets_;
  std::optional<int64_t> grows_from_;
};

}  // namespace trireme
