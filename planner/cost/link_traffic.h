#pragma once

#include <map>
#include <utility>
#include <vector>

#include "planner/cost/communication.h"
#include "planner/placement.h"
#include "planner/plan/plan.h"

namespace trireme {

// Bytes that one rank sends in a step, by pipeline rank; all ranks of a stage send alike.
struct RankSends {
  std::vector<double> tensor;                    // to the next rank of its tensor group
  std::vector<double> data;                      // to the next replica
  std::vector<double> shards;                    // to the next of those that share an optimizer
  int replicas_of_shards = 1;                    // that share one, where not all do
  std::map<std::pair<int, int>, double> stages;  // from one pipeline rank to another
  double ends = 0;  // between the first and the last pipeline rank, each way
};

// The busiest link of each tier that messages cross: a device's links inside its node, a node's
// NICs, a leaf's uplinks; what leaves it in a step, and for how long that keeps it busy at the
// bandwidths of the cluster file. Linear in the number of tensor groups.
std::vector<LinkTraffic> busiest_links(const Cluster& cluster, const PlacedLayout& layout,
                                       const RankSends& sends);

// The `link` of a device's links.
constexpr const char* kDeviceLink = "device";

}  // namespace trireme
