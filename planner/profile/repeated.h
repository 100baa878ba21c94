#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace trireme {

// A measurement that is taken again and again until two samples agree: then both saw the machine as
// it mostly is, and not as it was for a moment.
template <class Sample>
class Repeated {
 public:
  static constexpr double kAgreement = 1.03;

  // All of the same thing; `seconds`: what the sample took.
  void add(const Sample& sample, double seconds) {
    const auto after =
        std::upper_bound(samples_.begin(), samples_.end(), seconds,
                         [](double value, const auto& known) { return value < known.first; });
    samples_.insert(after, {seconds, sample});
  }

  bool settled() const { return first_that_agrees() < samples_.size(); }

  // The quicker of two that agree, else the middle one. There must be a sample.
  const Sample& typical() const {
    return samples_[settled() ? first_that_agrees() : (samples_.size() - 1) / 2].second;
  }

 private:
  // The quickest that the next agrees with; how many samples there are where there is none.
  size_t first_that_agrees() const {
    const auto agrees = [](const auto& a, const auto& b) {
      return b.first <= a.first * kAgreement;
    };
    const auto found = std::adjacent_find(samples_.begin(), samples_.end(), agrees);
    return static_cast<size_t>(found - samples_.begin());
  }

  std::vector<std::pair<double, Sample>> samples_;  // by seconds
};

}  // namespace trireme
