#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace trireme {

// A measurement that is taken twice, and where these do not agree once more: the middle one is what
// the machine mostly takes. The quickest would not be: a step of a run is the sum of its ops, with
// all that delays some of them.
template <class Sample>
class Repeated {
 public:
  static constexpr double kAgreement = 1.03;
  static constexpr size_t kMost = 3;

  // All of the same thing; `seconds`: what the sample took.
  void add(const Sample& sample, double seconds) {
    const auto after =
        std::upper_bound(samples_.begin(), samples_.end(), seconds,
                         [](double value, const auto& known) { return value < known.first; });
    samples_.insert(after, {seconds, sample});
  }

  bool settled() const {
    if (samples_.size() >= kMost) return true;
    return samples_.size() > 1 && samples_.back().first <= samples_.front().first * kAgreement;
  }

  // There must be a sample; of two the quicker.
  const Sample& typical() const { return samples_[(samples_.size() - 1) / 2].second; }

 private:
  std::vector<std::pair<double, Sample>> samples_;  // by seconds
};

}  // namespace trireme
