#include "planner/open_shares.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

namespace trireme {

// The last set takes what the others leave.
std::vector<Way> ways_to_share(int64_t total, const std::vector<ReplicaSet>& sets,
                               const Way& most) {
  std::vector<Way> ways;
  Way now(sets.size(), 0);
  const std::function<void(size_t, int64_t)> share = [&](size_t i, int64_t left) {
    const int64_t replicas = sets[i].replicas;
    int64_t others = 0;
    for (size_t k = i + 1; k < sets.size(); ++k) others += sets[k].replicas * most[k];
    const int64_t least = std::max<int64_t>(1, (left - others + replicas - 1) / replicas);
    for (int64_t count = least; count <= std::min(most[i], left / replicas); ++count) {
      now[i] = count;
      if (i + 1 < sets.size()) {
        share(i + 1, left - count * replicas);
      } else if (left == count * replicas) {
        ways.push_back(now);
      }
    }
  };
  share(0, total);
  return ways;
}

double OpenShares::expected(const Open& open) const {
  double longest = open.bound;
  for (size_t set = 0; set < excess_.size(); ++set) {
    longest = std::max(longest, open.at_least[set] + excess_[set]);
  }
  return longest;
}

std::optional<OpenShares::Open> OpenShares::next() {
  const auto first =
      std::min_element(open_.begin(), open_.end(),
                       [this](const Open& a, const Open& b) { return expected(a) < expected(b); });
  if (first == open_.end()) return std::nullopt;
  Open taken = std::move(*first);
  open_.erase(first);
  return taken;
}

void OpenShares::learn(const Open& tried, const std::vector<double>& seconds, double most) {
  std::erase_if(open_, [&](const Open& open) { return open.bound >= most; });
  if (!grows_from_) return;
  excess_.resize(tried.way.size(), 0);
  for (size_t set = 0; set < tried.way.size(); ++set) {
    const double known = std::isfinite(seconds[set])
                             ? seconds[set]
                             : std::max(most, tried.at_least[set] + excess_[set]);
    excess_[set] = known - tried.at_least[set];
    if (seconds[set] < most || tried.way[set] < *grows_from_) continue;
    std::erase_if(open_, [&](const Open& open) { return open.way[set] >= tried.way[set]; });
  }
}

}  // namespace trireme
