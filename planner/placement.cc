#include "planner/placement.h"

#include <algorithm>
#include <utility>

#include "topology/base/check.h"

namespace trireme {
namespace {

// Takes a pipeline rank's number in the whole pipeline, leaves that in its run.
const Run& find_run(const Placement& placement, int& pipeline_rank) {
  for (const Run& run : placement.runs) {
    if (pipeline_rank < run.pipeline_ranks) return run;
    pipeline_rank -= run.pipeline_ranks;
  }
  TRIREME_CHECK(!"a pipeline rank of this placement");
  return placement.runs.front();
}

// Of a set of so many replicas.
int side_by_side(const PlacedLayout& layout, int replicas, int node_devices) {
  switch (layout.placement.near) {
    case Near::data:
      return replicas;
    case Near::pipeline:
      return 1;
    case Near::node:
      break;
  }
  return node_devices / layout.tensor;
}

}  // namespace

const Run& PlacedLayout::run_of(int pipeline_rank) const {
  return find_run(placement, pipeline_rank);
}

int PlacedLayout::first_replica() const {
  int first = 0;
  for (size_t i = 0; i < placement.set; ++i) first += placement.sets[i].replicas;
  return first;
}

int PlacedLayout::replicas() const {
  return placement.sets.empty() ? data : placement.sets[placement.set].replicas;
}

PlacedLayout placed_on(const Layout& layout, size_t group) {
  return {layout, {{{group, layout.pipeline}}, Near::data}};
}

PlacedLayout placed_on_sets(const Layout& layout, std::vector<ReplicaSet> sets, Near near,
                            size_t set) {
  TRIREME_CHECK(sets.size() == layout.shares.size());
  PlacedLayout placed = placed_on(layout, sets[set].group);
  placed.micro_batches = layout.shares[set].micro_batches;
  placed.placement.near = near;
  placed.placement.sets = std::move(sets);
  placed.placement.set = set;
  return placed;
}

std::vector<PlacedLayout> parts_of(const PlacedLayout& layout) {
  const Placement& placement = layout.placement;
  if (placement.sets.empty()) return {layout};
  std::vector<PlacedLayout> parts;
  for (size_t set = 0; set < placement.sets.size(); ++set) {
    parts.push_back(placed_on_sets(layout.degrees(), placement.sets, placement.near, set));
  }
  return parts;
}

int replicas_side_by_side(const PlacedLayout& layout, int node_devices) {
  return side_by_side(layout, layout.replicas(), node_devices);
}

Seat seat_of(const Cluster& cluster, const PlacedLayout& layout, Coordinates at) {
  int along = at.pipeline;
  Run run = find_run(layout.placement, along);
  int replica = at.data, replicas = layout.data;
  for (const ReplicaSet& set : layout.placement.sets) {
    run.group = set.group;
    replicas = set.replicas;
    if (replica < replicas) break;
    replica -= replicas;
  }
  const int devices = cluster.groups[run.group].devices;
  const int together = side_by_side(layout, replicas, devices);
  const int block =
      replica % together + together * (along + run.pipeline_ranks * (replica / together));
  const int slot = at.tensor + layout.tensor * block;
  return {run.group, slot / devices, slot % devices};
}

std::vector<PlacedRank> placed_ranks(const Cluster& cluster, const PlacedLayout& layout) {
  std::vector<PlacedRank> ranks;
  ranks.reserve(static_cast<size_t>(layout.ranks()));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const Seat seat = seat_of(cluster, layout, coordinates_of(layout, Rank(rank)));
    ranks.push_back(
        {cluster.groups[seat.group].hosts[static_cast<size_t>(seat.node)], seat.device});
  }
  return ranks;
}

std::vector<size_t> groups_in_use(const Placement& placement) {
  std::vector<size_t> groups;
  const auto add = [&groups](size_t group) {
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  };
  for (const ReplicaSet& set : placement.sets) add(set.group);
  if (groups.empty()) {
    for (const Run& run : placement.runs) add(run.group);
  }
  return groups;
}

std::string device_names(const Cluster& cluster, const Placement& placement) {
  std::string names;
  for (const size_t group : groups_in_use(placement)) {
    const std::string& name = cluster.groups[group].device.name;
    if (names.find(name) != std::string::npos) continue;
    names += (names.empty() ? "" : " + ") + name;
  }
  return names;
}

}  // namespace trireme
