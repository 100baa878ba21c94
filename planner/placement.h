#pragma once

#include <string>
#include <vector>

#include "planner/plan/layout.h"
#include "planner/plan/plan.h"
#include "topology/cluster.h"

namespace trireme {

// Which axis is counted through the devices first, right after the tensor ranks: its groups sit
// close together, those of the other axis far apart. `node`: the replicas that fill a node, then
// the pipeline, then the other replicas, which number a multiple of those.
enum class Near { data, pipeline, node };

// Consecutive pipeline ranks whose devices are all of one kind.
struct Run {
  size_t group = 0;  // of nodes, in the cluster file's order
  int pipeline_ranks = 0;
  auto operator<=>(const Run&) const = default;
};

// Consecutive replicas that lie whole on nodes of one kind.
struct ReplicaSet {
  size_t group = 0;
  int replicas = 0;
  auto operator<=>(const ReplicaSet&) const = default;
};

// Where the ranks of a layout sit, as a rule. The pipeline is a chain of runs, each on another node
// group, from that group's first device on; in a run, devices are counted through its nodes.
//
// Or the replicas are of several kinds: then there is a set for each share of the layout, and what
// is asked of such a layout is asked of one of its sets, on whose group the only run is.
struct Placement {
  std::vector<Run> runs;
  Near near = Near::data;
  std::vector<ReplicaSet> sets = {};
  size_t set = 0;
  bool operator==(const Placement&) const = default;
};

struct PlacedLayout : Layout {
  Placement placement;

  const Layout& degrees() const { return *this; }
  const Run& run_of(int pipeline_rank) const;
  // Of the set in question, or of all: the first replica, and how many there are.
  int first_replica() const;
  int replicas() const;
};

// All ranks on one node group.
PlacedLayout placed_on(const Layout& layout, size_t group);

// Replicas of several kinds, seen from one of their sets. `layout` has a share for each.
PlacedLayout placed_on_sets(const Layout& layout, std::vector<ReplicaSet> sets, Near near,
                            size_t set);

// The layout as asked of each of its sets, or of all replicas where they are alike.
std::vector<PlacedLayout> parts_of(const PlacedLayout& layout);

// How many replicas of a stage are counted one after the other before the next stage's, on a group
// of nodes that has so many devices each.
int replicas_side_by_side(const PlacedLayout& layout, int node_devices);

struct Seat {
  size_t group = 0;
  int node = 0;  // among the group's nodes
  int device = 0;
  bool operator==(const Seat&) const = default;
};

Seat seat_of(const Cluster& cluster, const PlacedLayout& layout, Coordinates at);

// By rank.
std::vector<PlacedRank> placed_ranks(const Cluster& cluster, const PlacedLayout& layout);

// The node groups in use, each once, in the order of pipeline ranks or replicas.
std::vector<size_t> groups_in_use(const Placement& placement);

// The device's catalogue name, or "A + B" in that order where there are several kinds.
std::string device_names(const Cluster& cluster, const Placement& placement);

}  // namespace trireme
