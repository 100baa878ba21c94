#pragma once

#include <string>
#include <vector>

#include "planner/plan/layout.h"
#include "planner/plan/plan.h"
#include "topology/cluster.h"

namespace trireme {

// Which axis is counted through the devices first, right after the tensor ranks: its groups sit
// close together, those of the other axis far apart.
enum class Near { data, pipeline };

// Consecutive pipeline ranks whose devices are all of one kind.
struct Run {
  size_t group = 0;  // of nodes, in the cluster file's order
  int pipeline_ranks = 0;
  auto operator<=>(const Run&) const = default;
};

// Where the ranks of a layout sit, as a rule. The pipeline is a chain of runs, each on another node
// group, from that group's first device on; in a run, devices are counted through its nodes.
struct Placement {
  std::vector<Run> runs;
  Near near = Near::data;
  bool operator==(const Placement&) const = default;
};

struct PlacedLayout : Layout {
  Placement placement;

  const Layout& degrees() const { return *this; }
  const Run& run_of(int pipeline_rank) const;
};

// All ranks on one node group.
PlacedLayout placed_on(const Layout& layout, size_t group);

struct Seat {
  size_t group = 0;
  int node = 0;  // among the group's nodes
  int device = 0;
  bool operator==(const Seat&) const = default;
};

Seat seat_of(const Cluster& cluster, const PlacedLayout& layout, Coordinates at);

// By rank.
std::vector<PlacedRank> placed_ranks(const Cluster& cluster, const PlacedLayout& layout);

// The device's catalogue name, or "A + B" in pipeline order where there are several kinds.
std::string device_names(const Cluster& cluster, const Placement& placement);

}  // namespace trireme
