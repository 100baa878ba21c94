#include "planner/cost/link_traffic.h"

#include <fmt/format.h>

#include <algorithm>

namespace trireme {
namespace {

// What leaves a link in a step.
struct Load {
  double bytes = 0;
  double seconds = 0;
  void add(double more, double bytes_per_s) {
    bytes += more;
    seconds += more / bytes_per_s;
  }
};

size_t at(int i) {
  return static_cast<size_t>(i);
}

class Loads {
 public:
  Loads(const Cluster& cluster, const PlacedLayout& layout)
      : cluster_(cluster), layout_(layout), links_(cluster), nodes_(at(cluster.node_count())) {
    for (const NodeGroup& group : cluster.groups)
      most_devices_ = std::max(most_devices_, group.devices);
    devices_.resize(nodes_.size() * at(most_devices_));
    const int last = cluster.node_count() - 1;
    leaves_.resize(at(links_.leaf_of(Node(last))) + 1);
  }

  // From every rank of a tensor group to the rank that lies alike in another.
  void between_groups(Coordinates from, Coordinates to, double bytes) {
    const Seat a = seat_of(cluster_, layout_, from), b = seat_of(cluster_, layout_, to);
    const Node here = links_.node_of(a), there = links_.node_of(b);
    if (here == there) return inside(a, b, bytes);
    const NodeGroup& nodes = cluster_.groups[a.group];
    const double all = layout_.tensor * bytes;
    nodes_[at(here.value)].add(all, links_.node_bytes_per_s(nodes));
    const int leaf = links_.leaf_of(here);
    if (leaf != links_.leaf_of(there)) leaves_[at(leaf)].add(all, links_.leaf_bytes_per_s(nodes));
  }

  // From the first rank of a tensor group to the next: all others send as much.
  void inside_group(Coordinates first, double bytes) {
    const Seat seat = seat_of(cluster_, layout_, first);
    inside(seat, {seat.group, seat.node, seat.device + 1}, bytes);
  }

  std::vector<LinkTraffic> busiest_of_each() const {
    std::vector<LinkTraffic> result;
    const auto add = [&](const char* link, const std::vector<Load>& loads, auto&& name_of) {
      const auto most =
          std::max_element(loads.begin(), loads.end(),
                           [](const Load& a, const Load& b) { return a.seconds < b.seconds; });
      if (most->bytes == 0) return;
      result.push_back(
          {link, name_of(static_cast<int>(most - loads.begin())), most->bytes, most->seconds});
    };
    const auto host = [&](int node) { return cluster_.host(Node(node)); };
    add(kDeviceLink, devices_, [&](int device) {
      return fmt::format("{}:{}", host(device / most_devices_), device % most_devices_);
    });
    add("node", nodes_, host);
    add("leaf", leaves_, [&](int leaf) {
      const int first = leaf * cluster_.fabric.leaf_nodes;
      const int end = std::min(first + cluster_.fabric.leaf_nodes, cluster_.node_count());
      return fmt::format("{} to {}", host(first), host(end - 1));
    });
    return result;
  }

 private:
  void inside(const Seat& a, const Seat& b, double bytes) {
    const int device = links_.node_of(a).value * most_devices_ + a.device;
    devices_[at(device)].add(bytes, links_.inside(a, b).bytes_per_s);
  }

  const Cluster& cluster_;
  const PlacedLayout& layout_;
  Links links_;
  std::vector<Load> nodes_, leaves_;
  int most_devices_ = 1;       // of a node
  std::vector<Load> devices_;  // node after node; of each tensor group the first rank's
};

}  // namespace

std::vector<LinkTraffic> busiest_links(const Cluster& cluster, const PlacedLayout& layout,
                                       const RankSends& sends) {
  Loads loads(cluster, layout);
  const int first_replica = layout.first_replica();
  for (int d = first_replica; d < first_replica + layout.replicas(); ++d) {
    for (int p = 0; p < layout.pipeline; ++p) {
      const auto rank = static_cast<size_t>(p);
      if (layout.tensor > 1) loads.inside_group({0, d, p}, sends.tensor[rank]);
      if (layout.data > 1) {
        loads.between_groups({0, d, p}, {0, (d + 1) % layout.data, p}, sends.data[rank]);
      }
      if (sends.shards[rank] > 0) {
        const int first = d - d % sends.replicas_of_shards;
        const int next = first + (d + 1 - first) % sends.replicas_of_shards;
        loads.between_groups({0, d, p}, {0, next, p}, sends.shards[rank]);
      }
    }
    for (const auto& [ends, bytes] : sends.stages) {
      loads.between_groups({0, d, ends.first}, {0, d, ends.second}, bytes);
    }
    if (sends.ends == 0) continue;
    const Coordinates first{0, d, 0}, last{0, d, layout.pipeline - 1};
    loads.between_groups(first, last, sends.ends);
    loads.between_groups(last, first, sends.ends);
  }
  return loads.busiest_of_each();
}

}  // namespace trireme
