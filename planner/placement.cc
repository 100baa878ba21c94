#include "planner/placement.h"

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

}  // namespace

const Run& PlacedLayout::run_of(int pipeline_rank) const {
  return find_run(placement, pipeline_rank);
}

PlacedLayout placed_on(const Layout& layout, size_t group) {
  return {layout, {{{group, layout.pipeline}}, Near::data}};
}

Seat seat_of(const Cluster& cluster, const PlacedLayout& layout, Coordinates at) {
  int along = at.pipeline;
  const Run& run = find_run(layout.placement, along);
  const int block = layout.placement.near == Near::data ? at.data + layout.data * along
                                                        : along + run.pipeline_ranks * at.data;
  const int slot = at.tensor + layout.tensor * block;
  const int devices = cluster.groups[run.group].devices;
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

std::string device_names(const Cluster& cluster, const Placement& placement) {
  std::string names;
  for (const Run& run : placement.runs) {
    const std::string& name = cluster.groups[run.group].device.name;
    if (names.find(name) != std::string::npos) continue;
    names += (names.empty() ? "" : " + ") + name;
  }
  return names;
}

}  // namespace trireme
