#include "planner/step_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "topology/base/check.h"

namespace trireme {

void StepBound::add(double fixed, double each) {
  if (only_at_) {
    const auto there = [&](const Line& line) { return line.fixed + line.each * *only_at_; };
    if (lines_.empty()) lines_.push_back({fixed, each});
    if (there({fixed, each}) > there(lines_.front())) lines_.front() = {fixed, each};
    return;
  }
  for (const Line& line : lines_) {
    if (line.fixed >= fixed && line.each >= each) return;
  }
  std::erase_if(lines_, [&](const Line& line) { return line.fixed <= fixed && line.each <= each; });
  lines_.push_back({fixed, each});
}

void StepBound::add_trips(double trip, int in_flight) {
  trip_ = trip;
  in_flight_ = in_flight;
}

void StepBound::then(double seconds) {
  for (Line& line : lines_) line.fixed += seconds;
  after_trips_ += seconds;
}

double StepBound::seconds(double micro_batches) const {
  TRIREME_CHECK(!only_at_ || *only_at_ == micro_batches);
  double most = 0;
  for (const Line& line : lines_) most = std::max(most, line.fixed + line.each * micro_batches);
  if (in_flight_ == 0) return most;
  return std::max(most, after_trips_ + trip_ * std::ceil(micro_batches / in_flight_));
}

double StepBound::micro_batches(double seconds) const {
  TRIREME_CHECK(!only_at_);
  constexpr double kRounding = 1 + 1e-9;
  double most = std::numeric_limits<double>::infinity();
  for (const Line& line : lines_) {
    if (line.fixed > seconds) return 0;
    if (line.each > 0) most = std::min(most, (seconds - line.fixed) / line.each);
  }
  if (in_flight_ > 0 && trip_ > 0) {
    const double trips = std::floor((seconds - after_trips_) / trip_ * kRounding);
    most = std::min(most, trips * in_flight_);
  }
  return std::max(0.0, std::floor(most * kRounding));
}

}  // namespace trireme
