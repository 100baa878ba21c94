#include "topology/cluster.h"

#include <algorithm>

#include "topology/base/check.h"

namespace trireme {
namespace {

// The group that holds a node, and the node's position in it.
std::pair<const NodeGroup*, size_t> find_node(const Cluster& cluster, Node node) {
  TRIREME_CHECK(node.value >= 0);
  auto position = static_cast<size_t>(node.value);
  for (const auto& group : cluster.groups) {
    if (position < group.hosts.size()) return {&group, position};
    position -= group.hosts.size();
  }
  TRIREME_CHECK(!"a node of this cluster");
  return {};
}

}  // namespace

int Cluster::node_count() const {
  size_t count = 0;
  for (const auto& group : groups) count += group.hosts.size();
  return static_cast<int>(count);
}

int Cluster::device_count() const {
  int count = 0;
  for (const auto& group : groups) count += static_cast<int>(group.hosts.size()) * group.devices;
  return count;
}

const NodeGroup& Cluster::group_of(Node node) const {
  return *find_node(*this, node).first;
}

const std::string& Cluster::host(Node node) const {
  const auto [group, position] = find_node(*this, node);
  return group->hosts[position];
}

Path Cluster::inside(Node node, int device_a, int device_b) const {
  const auto& group = group_of(node);
  TRIREME_CHECK(device_a >= 0 && device_a < group.devices && device_b >= 0 &&
                device_b < group.devices);
  TRIREME_CHECK(device_a != device_b);
  const bool bridged = device_a / 2 == device_b / 2;
  if (group.link == NodeLink::nvlink_pairs && !bridged) {
    return {group.link_latency_s, group.device.pcie_bytes_per_s};
  }
  return {group.link_latency_s, group.link_bytes_per_s};
}

Path Cluster::between(Node a, Node b) const {
  TRIREME_CHECK(a != b && fabric.kind != FabricKind::none);
  const double rate = std::min(group_of(a).nic_bytes_per_s, group_of(b).nic_bytes_per_s);
  const bool one_leaf =
      fabric.kind == FabricKind::flat || a.value / fabric.leaf_nodes == b.value / fabric.leaf_nodes;
  return {one_leaf ? fabric.latency_s : fabric.spine_latency_s, rate};
}

}  // namespace trireme
