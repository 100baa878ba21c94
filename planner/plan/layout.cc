#include "planner/plan/layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "topology/base/check.h"

namespace trireme {

const char* name_of(Recompute recompute) {
  switch (recompute) {
    case Recompute::none:
      return "none";
    case Recompute::selective:
      return "selective";
    case Recompute::full:
      break;
  }
  return "full";
}

std::optional<Recompute> recompute_named(std::string_view name) {
  for (const auto recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
    if (name == name_of(recompute)) return recompute;
  }
  return std::nullopt;
}

const std::vector<std::string>& recompute_names() {
  static const std::vector<std::string> names = {"none", "selective", "full"};
  return names;
}

size_t Layout::share_of(int replica) const {
  size_t share = 0;
  for (; share + 1 < shares.size() && replica >= shares[share].replicas; ++share) {
    replica -= shares[share].replicas;
  }
  return share;
}

int Layout::micro_batches_of(int replica) const {
  return shares.empty() ? micro_batches : shares[share_of(replica)].micro_batches;
}

int Layout::micro_batches_before(int replica) const {
  if (shares.empty()) return replica * micro_batches;
  int sum = 0;
  for (const Share& share : shares) {
    const int of_share = std::min(replica, share.replicas);
    sum += of_share * share.micro_batches;
    replica -= of_share;
  }
  return sum;
}

Rank rank_at(const Layout& layout, Coordinates at) {
  return Rank(at.tensor + layout.tensor * (at.data + layout.data * at.pipeline));
}

Coordinates coordinates_of(const Layout& layout, Rank rank) {
  TRIREME_CHECK(rank.value >= 0 && rank.value < layout.ranks());
  const int above_tensor = rank.value / layout.tensor;
  return {rank.value % layout.tensor, above_tensor % layout.data, above_tensor / layout.data};
}

std::vector<Rank> tensor_group(const Layout& layout, Rank rank) {
  Coordinates at = coordinates_of(layout, rank);
  std::vector<Rank> group;
  for (at.tensor = 0; at.tensor < layout.tensor; ++at.tensor) group.push_back(rank_at(layout, at));
  return group;
}

std::vector<Rank> data_group(const Layout& layout, Rank rank) {
  Coordinates at = coordinates_of(layout, rank);
  std::vector<Rank> group;
  for (at.data = 0; at.data < layout.data; ++at.data) group.push_back(rank_at(layout, at));
  return group;
}

std::vector<Rank> pipeline_group(const Layout& layout, Rank rank) {
  Coordinates at = coordinates_of(layout, rank);
  std::vector<Rank> group;
  for (at.pipeline = 0; at.pipeline < layout.pipeline; ++at.pipeline) {
    group.push_back(rank_at(layout, at));
  }
  return group;
}

Range split_evenly(int count, int parts, int index) {
  const int base = count / parts;
  const int larger = count % parts;
  const int begin = index * base + (index < larger ? index : larger);
  return {begin, begin + base + (index < larger ? 1 : 0)};
}

std::string coordinate_name(Coordinates at) {
  return fmt::format("d{}p{}t{}", at.data, at.pipeline, at.tensor);
}

}  // namespace trireme
