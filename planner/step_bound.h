#pragma once

#include <optional>
#include <vector>

namespace trireme {

// How long a step takes at least, whatever the number of its micro-batches: the greatest of lines
// in that number, or round trips of so many of them each. In any unit of time.
class StepBound {
 public:
  struct Trips {
    double trip = 0;
    int in_flight = 1;   // micro-batches on every trip; on the last there may be fewer
    double between = 0;  // two that set out on the same trip, if it is not the first
    double fixed = 0;
  };

  // Where a number is given, the bound is of use for that only: it keeps less, and is faster to
  // make.
  explicit StepBound(std::optional<int> only_at = std::nullopt) : only_at_(only_at) {}

  // No step is shorter than `fixed` and `each` for every micro-batch.
  void add(double fixed, double each);
  // Nor than these.
  void add_trips(const Trips& trips);
  // What follows all that was added before.
  void then(double seconds);

  double seconds(double micro_batches) const;
  // The most whole micro-batches that may be done in so much time, or one more for what rounding
  // makes of it.
  double micro_batches(double seconds) const;

 private:
  struct Line {
    double fixed = 0, each = 0;
  };

  std::vector<Line> lines_;  // none above another everywhere, or at the only number
  std::optional<int> only_at_;
  std::optional<Trips> trips_;
};

}  // namespace trireme
