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

size_t busiest(const std::vector<Load>& loads) {
  const auto most = std::max_element(loads.begin(), loads.end(), [](const Load& a, const Load& b) {
    return a.seconds < b.seconds;
  });
  return static_cast<size_t>(most - loads.begin());
}

class Loads {
 public:
  Loads(const Cluster& cluster, const PlacedLayout& layout)
      : cluster_(cluster),
        layout_(layout),
        links_(cluster),
        nodes_(static_cast<size_t>(cluster.node_count())) {
    for (const NodeGroup& nodes : cluster.groups) {
      first_node_.push_back(first_node_.empty() ? 0 : next_node_);
      next_node_ = first_node_.back() + nodes.hosts.size();
    }
    const bool tree = cluster.fabric.kind == FabricKind::tree && cluster.fabric.leaf_nodes > 0;
    leaf_nodes_ = tree ? static_cast<size_t>(cluster.fabric.leaf_nodes) : nodes_.size();
    leaves_.resize((nodes_.size() + leaf_nodes_ - 1) / leaf_nodes_);
  }

  // From every rank of a tensor group to the rank that lies alike in another.
  void between_groups(Coordinates from, Coordinates to, double bytes) {
    const Seat a = seat_of(cluster_, layout_, from), b = seat_of(cluster_, layout_, to);
    const size_t here = node_of(a), there = node_of(b);
    if (here == there) return inside(a, b, bytes);
    const NodeGroup& nodes = cluster_.groups[a.group];
    const double all = layout_.tensor * bytes;
    nodes_[here].add(all, links_.node_bytes_per_s(nodes));
    if (here / leaf_nodes_ != there / leaf_nodes_) {
      leaves_[here / leaf_nodes_].add(all, links_.leaf_bytes_per_s(nodes));
    }
  }

  // From the first rank of a tensor group to the next: all others send as much.
  void inside_group(Coordinates first, double bytes) {
    const Seat seat = seat_of(cluster_, layout_, first);
    inside(seat, {seat.group, seat.node, seat.device + 1}, bytes);
  }

  std::vector<LinkTraffic> busiest_of_each() const {
    std::vector<LinkTraffic> result;
    const auto add = [&](const char* link, std::string where, const Load& load) {
      if (load.bytes > 0) result.push_back({link, std::move(where), load.bytes, load.seconds});
    };
    if (!devices_.empty()) {
      const auto most = std::max_element(
          devices_.begin(), devices_.end(),
          [](const auto& a, const auto& b) { return a.second.seconds < b.second.seconds; });
      const auto [node, device] = most->first;
      add("device", fmt::format("{}:{}", host(node), device), most->second);
    }
    const size_t node = busiest(nodes_), leaf = busiest(leaves_);
    add("node", host(node), nodes_[node]);
    const size_t last = std::min((leaf + 1) * leaf_nodes_, nodes_.size()) - 1;
    add("leaf", fmt::format("{} to {}", host(leaf * leaf_nodes_), host(last)), leaves_[leaf]);
    return result;
  }

 private:
  size_t node_of(const Seat& seat) const {
    return first_node_[seat.group] + static_cast<size_t>(seat.node);
  }

  const std::string& host(size_t node) const {
    size_t group = first_node_.size() - 1;
    while (first_node_[group] > node) --group;
    return cluster_.groups[group].hosts[node - first_node_[group]];
  }

  void inside(const Seat& a, const Seat& b, double bytes) {
    devices_[{node_of(a), a.device}].add(bytes, links_.inside(a, b).bytes_per_s);
  }

  const Cluster& cluster_;
  const PlacedLayout& layout_;
  Links links_;
  std::vector<size_t> first_node_;  // by group
  size_t next_node_ = 0;
  size_t leaf_nodes_ = 1;
  std::map<std::pair<size_t, int>, Load> devices_;  // node, device; of each tensor group the first
  std::vector<Load> nodes_, leaves_;
};

}  // namespace

std::vector<LinkTraffic> busiest_links(const Cluster& cluster, const PlacedLayout& layout,
                                       const RankSends& sends) {
  Loads loads(cluster, layout);
  for (int d = 0; d < layout.data; ++d) {
    for (int p = 0; p < layout.pipeline; ++p) {
      const auto rank = static_cast<size_t>(p);
      if (layout.tensor > 1) loads.inside_group({0, d, p}, sends.tensor[rank]);
      if (layout.data > 1) {
        loads.between_groups({0, d, p}, {0, (d + 1) % layout.data, p}, sends.data[rank]);
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
