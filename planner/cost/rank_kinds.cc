#include "planner/cost/rank_kinds.h"

namespace trireme {

double seconds_of_layer(const Layout& layout, const ModelSeconds& model) {
  return std::max(work_of(layout, model.layer.total()), kLeastSeconds);
}

int64_t RankKinds::layers_within(double seconds) {
  int64_t layers = 0;
  for (const RankKind& kind : fixed) layers += int64_t{kind.ranks} * kind.layers_within(seconds);
  std::sort(open.begin(), open.end(), [&](const RankKind& a, const RankKind& b) {
    return a.layers_within(seconds) > b.layers_within(seconds);
  });
  int left = ranks_of_open;
  for (const RankKind& kind : open) {
    const int ranks = std::min(left, kind.ranks);
    layers += int64_t{ranks} * kind.layers_within(seconds);
    left -= ranks;
  }
  return layers;
}

// It is no earlier than if layers were split and, where ranks may have one more than that, later by
// no more than the slowest takes for it. Once it is known closely, the times at which some rank is
// through with one layer more are few.
double RankKinds::least_seconds(int layers) {
  double late = 0, early = RankLimit::kNever, slowest = 0, per_second = 0;
  for_each([&](const RankKind& kind) {
    late = std::max(late, kind.layer * kind.most);
    early = std::min(early, kind.layer);
    slowest = std::max(slowest, kind.layer);
    per_second += kind.ranks / kind.layer;
  });
  constexpr double kLess = 1 - 1e-9;
  early = kLess * std::max(early, layers / per_second);
  const auto do_all = [&](double seconds) { return layers_within(seconds) >= layers; };
  if (!do_all(early + slowest)) {
    if (!do_all(late)) return RankLimit::kNever;
    narrow(early, late, do_all);
  }
  while (!do_all(early)) {
    double next = RankLimit::kNever;
    for_each([&](const RankKind& kind) { next = std::min(next, kind.seconds_of_one_more(early)); });
    early = next;
  }
  return early;
}

}  // namespace trireme
