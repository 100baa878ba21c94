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

// The last of a trip sets out no later than the first of the next.
void StepBound::add_trips(const Trips& trips) {
  trips_ = trips;
  trips_->between = std::min(trips.between, trips.trip / trips.in_flight);
}

void StepBound::then(double seconds) {
  for (Line& line : lines_) line.fixed += seconds;
  if (trips_) trips_->fixed += seconds;
}

double StepBound::seconds(double micro_batches) const {
  TRIREME_CHECK(!only_at_ || *only_at_ == micro_batches);
  double most = 0;
  for (const Line& line : lines_) most = std::max(most, line.fixed + line.each * micro_batches);
  if (!trips_) return most;
  const double trips = std::ceil(micro_batches / trips_->in_flight);
  const double before_last = trips > 1 ? micro_batches - (trips - 1) * trips_->in_flight - 1 : 0;
  return std::max(most, trips_->fixed + trips * trips_->trip + before_last * trips_->between);
}

double StepBound::micro_batches(double seconds) const {
  TRIREME_CHECK(!only_at_);
  constexpr double kRounding = 1 + 1e-9;
  double most = std::numeric_limits<double>::infinity();
  for (const Line& line : lines_) {
    if (line.fixed > seconds) return 0;
    if (line.each > 0) most = std::min(most, (seconds - line.fixed) / line.each);
  }
  if (trips_ && trips_->trip > 0) {
    const double on_trips = (seconds - trips_->fixed) * kRounding;
    const double trips = std::floor(on_trips / trips_->trip);
    double unused = 0;  // places on the last trip
    if (trips > 1 && trips_->between > 0) {
      const double on_last = std::floor((on_trips - trips * trips_->trip) / trips_->between) + 1;
      unused = std::max(0.0, trips_->in_flight - on_last);
    }
    most = std::min(most, trips * trips_->in_flight - unused);
  }
  return std::max(0.0, std::floor(most * kRounding));
}

}  // namespace trireme
