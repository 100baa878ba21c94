#pragma once

#include <string>
#include <vector>

#include "planner/placement.h"
#include "topology/cluster.h"

namespace trireme {

// What a plan leaves idle, in sentences for its notes.

// Of the node groups that it uses, as many devices as it does; empty where it uses them all.
std::string idle_devices(const Cluster& cluster, const PlacedLayout& layout, const Pins& pins);

// The node groups that it uses nothing of, one by one.
std::vector<std::string> idle_groups(const Cluster& cluster, const PlacedLayout& layout);

}  // namespace trireme
