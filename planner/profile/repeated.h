#pragma once

#include <algorithm>
#include <limits>
#include <utility>

namespace trireme {

// A measurement that is taken again and again. What else a machine does only ever adds to the time,
// so the quickest sample counts; once another agrees with it, no more are needed.
template <class Sample>
class Repeated {
 public:
  static constexpr double kAgreement = 1.03;

  // Both of the same thing; `seconds`: what the sample took.
  void add(const Sample& sample, double seconds) {
    if (seconds < least_) {
      quickest_ = sample;
      next_ = std::exchange(least_, seconds);
    } else {
      next_ = std::min(next_, seconds);
    }
  }

  bool settled() const { return next_ < kNever && next_ <= least_ * kAgreement; }
  const Sample& quickest() const { return quickest_; }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  Sample quickest_{};
  double least_ = kNever;
  double next_ = kNever;  // the least of the others
};

}  // namespace trireme
