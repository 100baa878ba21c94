#include "planner/cost/communication.h"

#include <algorithm>
#include <cmath>

namespace trireme {
namespace {

// Of a NIC's line rate: headers and flow control of InfiniBand and RoCE leave 92 to 97 %
// (ib_write_bw reports 194 to 197 Gbit/s of 200), collectives somewhat less.
constexpr double kNetworkEfficiency = 0.92;

// The path that takes longer for a message of middling size.
Path slower(const Path& a, const Path& b) {
  return {std::max(a.latency_s, b.latency_s), std::min(a.bytes_per_s, b.bytes_per_s)};
}

}  // namespace

double all_reduce_seconds(int n, double bytes, const Path& slowest) {
  if (n <= 1) return 0;
  const double ring =
      2.0 * (n - 1) * slowest.latency_s + 2.0 * (n - 1) / n * bytes / slowest.bytes_per_s;
  const double tree =
      2.0 * std::ceil(std::log2(n)) * slowest.latency_s + 2 * bytes / slowest.bytes_per_s;
  return std::min(ring, tree);
}

double message_seconds(double bytes, const Path& path) {
  return path.latency_s + bytes / path.bytes_per_s;
}

Links::Links(const Cluster& cluster, size_t group)
    : cluster_(&cluster), group_(&cluster.groups[group]) {
  for (size_t g = 0; g < group; ++g)
    first_node_ += static_cast<int>(cluster.groups[g].hosts.size());
}

Node Links::node_of(int rank) const {
  return Node(first_node_ + rank / group_->devices);
}

bool Links::same_leaf(Node a, Node b) const {
  const Fabric& fabric = cluster_->fabric;
  return fabric.kind != FabricKind::tree || fabric.leaf_nodes <= 0 ||
         a.value / fabric.leaf_nodes == b.value / fabric.leaf_nodes;
}

Path Links::between(int rank_a, int rank_b, int flows) const {
  const Node a = node_of(rank_a), b = node_of(rank_b);
  if (a == b) {
    Path path = cluster_->inside(a, rank_a % group_->devices, rank_b % group_->devices);
    path.bytes_per_s *= group_->device.link_efficiency;
    return path;
  }
  Path path = cluster_->between(a, b);
  const double node = std::max(1, group_->nics) * group_->nic_bytes_per_s;
  path.bytes_per_s = kNetworkEfficiency * std::min(path.bytes_per_s, node / flows);
  return path;
}

Path Links::tensor(int tensor_ranks) const {
  Path slowest{0, 1e30};
  for (int i = 0; i < tensor_ranks && tensor_ranks > 1; ++i) {
    slowest = slower(slowest, between(i, (i + 1) % tensor_ranks, 1));
  }
  return slowest;
}

// A ring visits a node's ranks before it leaves the node, so each of the groups that span nodes
// (one per tensor rank) sends one stream out of a node, over all NICs together.
Path Links::data(const Layout& layout) const {
  Path slowest{0, 1e30};
  if (layout.data == 1) return slowest;
  const int block = layout.tensor * layout.data;
  for (int p = 0; p < layout.pipeline; ++p) {
    const int first = block * p;
    for (int d = 0; d < layout.data; ++d) {
      const int from = first + layout.tensor * d;
      const int to = first + layout.tensor * ((d + 1) % layout.data);
      Path path = between(from, to, layout.tensor);
      if (node_of(from) != node_of(to)) {
        path.bytes_per_s = kNetworkEfficiency * std::max(1, group_->nics) *
                           group_->nic_bytes_per_s / layout.tensor;
        if (group_->link_bytes_per_s > 0) {
          path.bytes_per_s =
              std::min(path.bytes_per_s, group_->link_bytes_per_s * group_->device.link_efficiency);
        }
      }
      slowest = slower(slowest, path);
    }
  }
  return slowest;
}

Path Links::pipeline(const Layout& layout) const {
  Path slowest{0, 1e30};
  const int block = layout.tensor * layout.data;
  for (int p = 0; p < layout.pipeline && layout.pipeline > 1; ++p) {
    const int next = (p + 1) % layout.pipeline;
    if (next == 0 && layout.chunks == 1) break;
    // The first and the last rank of a stage see every kind of path that the ranks between them
    // see.
    for (const int within : {0, block - 1}) {
      const int from = block * p + within, to = block * next + within;
      Path path = between(from, to, std::min(block, group_->devices));
      if (!same_leaf(node_of(from), node_of(to))) {
        path.bytes_per_s /= std::max(1.0, cluster_->fabric.oversubscription);
      }
      slowest = slower(slowest, path);
    }
  }
  return slowest;
}

Path Links::ends(const Layout& layout) const {
  const int block = layout.tensor * layout.data;
  return between(0, block * (layout.pipeline - 1), std::min(block, group_->devices));
}

}  // namespace trireme
