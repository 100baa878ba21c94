#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace trireme {

// What the ranks of a pipeline hold of activations at their peaks, at least, whichever of several
// schedules they run, as far as the layers of a rank lie evenly on its chunks. Those of a layer and
// a micro-batch count as one. Whatever lies on the first and the last rank beside layers may leave
// them uneven: with several chunks they are taken to hold one micro-batch.
//
// naive, which holds as little, does one micro-batch after the other; it is counted apart.
class LeastHeld {
 public:
  // With no more layers than these. For longer steps, too: they hold no less.
  LeastHeld(int pipeline, int micro_batches, int layers);

  void add(const std::string& schedule, int chunks);

  // Whether there is anything but naive; what the functions below tell is of that.
  bool any() const { return any_; }
  bool naive() const { return naive_; }
  int held(int rank, int layers) const;
  // No rank holds more, but for many layers.
  int most(int layers) const {
    return most_[std::min(static_cast<size_t>(layers), most_.size() - 1)];
  }
  int pipeline() const { return static_cast<int>(held_.size()); }

 private:
  int micro_batches_;
  bool any_ = false, naive_ = false;
  std::vector<std::vector<int>> held_;  // by rank and layers
  std::vector<int> most_;               // by layers
};

}  // namespace trireme
