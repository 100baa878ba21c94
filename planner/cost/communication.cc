#include "planner/cost/communication.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace trireme {
namespace {

// Of a NIC's line rate: headers and flow control of InfiniBand and RoCE leave 92 to 97 %
// (ib_write_bw reports 194 to 197 Gbit/s of 200), collectives somewhat less.
constexpr double kNetworkEfficiency = 0.92;

// The path that takes longer for a message of middling size.
Path slower(const Path& a, const Path& b) {
  return {std::max(a.latency_s, b.latency_s), std::min(a.bytes_per_s, b.bytes_per_s),
          std::min(a.reduced_bytes_per_s, b.reduced_bytes_per_s)};
}

// Before any was looked at.
constexpr Path kFastest{0, 1e30, 1e30};

// Of an all-reduce; never where the switches do not add up.
double in_switches_seconds(int n, double bytes, const Path& slowest) {
  if (n <= 1 || slowest.reduced_bytes_per_s == 0) return std::numeric_limits<double>::infinity();
  return 2 * slowest.latency_s + bytes / slowest.reduced_bytes_per_s;
}

// Of a node, all NICs together.
double uplink(const NodeGroup& nodes) {
  return std::max(1, nodes.nics) * nodes.nic_bytes_per_s;
}

}  // namespace

double scatter_gather_seconds(int n, double bytes, const Path& slowest) {
  if (n <= 1) return 0;
  const double ring =
      2.0 * (n - 1) * slowest.latency_s + 2.0 * (n - 1) / n * bytes / slowest.bytes_per_s;
  const double tree =
      2.0 * std::ceil(std::log2(n)) * slowest.latency_s + 2 * bytes / slowest.bytes_per_s;
  return std::min(ring, tree);
}

double scatter_gather_sends(int n, double bytes) {
  return 2.0 * (n - 1) / n * bytes;
}

double all_reduce_seconds(int n, double bytes, const Path& slowest) {
  return std::min(scatter_gather_seconds(n, bytes, slowest),
                  in_switches_seconds(n, bytes, slowest));
}

double all_reduce_sends(int n, double bytes, const Path& slowest) {
  const bool in_switches =
      in_switches_seconds(n, bytes, slowest) < scatter_gather_seconds(n, bytes, slowest);
  return in_switches ? bytes : scatter_gather_sends(n, bytes);
}

double message_seconds(double bytes, const Path& path) {
  return path.latency_s + bytes / path.bytes_per_s;
}

Node Links::node_of(const Seat& seat) const {
  int node = seat.node;
  for (size_t g = 0; g < seat.group; ++g) {
    node += static_cast<int>(cluster_.groups[g].hosts.size());
  }
  return Node(node);
}

int Links::leaf_of(Node node) const {
  const Fabric& fabric = cluster_.fabric;
  const bool leaves = fabric.kind == FabricKind::tree && fabric.leaf_nodes > 0;
  return leaves ? node.value / fabric.leaf_nodes : 0;
}

double Links::crowding(double leaf_share) const {
  return std::max(1.0, cluster_.fabric.oversubscription * std::min(1.0, leaf_share));
}

Path Links::inside(const Seat& a, const Seat& b, int apart) const {
  const NodeGroup& nodes = cluster_.groups[a.group];
  Path path = cluster_.inside(node_of(a), a.device, b.device);
  const int below = nodes.pcie_switch_devices;
  if (nodes.link == NodeLink::pcie && below > 0 && a.device / below != b.device / below) {
    path.bytes_per_s /= std::min(apart, below);
  }
  if (nodes.link == NodeLink::nvlink) {
    path.reduced_bytes_per_s = path.bytes_per_s * nodes.device.switch_efficiency;
  }
  path.bytes_per_s *= nodes.device.link_efficiency;
  return path;
}

double Links::node_bytes_per_s(const NodeGroup& nodes) const {
  return kNetworkEfficiency * uplink(nodes);
}

double Links::leaf_bytes_per_s(const NodeGroup& nodes) const {
  const Fabric& fabric = cluster_.fabric;
  return fabric.leaf_nodes * node_bytes_per_s(nodes) / std::max(1.0, fabric.oversubscription);
}

Path Links::between(const Seat& a, const Seat& b, const Senders& from, const Senders& to) const {
  const Node sender = node_of(a), receiver = node_of(b);
  if (sender == receiver) return inside(a, b, std::abs(a.device - b.device));
  Path path = cluster_.between(sender, receiver);
  path.bytes_per_s = kNetworkEfficiency *
                     std::min({path.bytes_per_s, uplink(cluster_.groups[a.group]) / from.of_node,
                               uplink(cluster_.groups[b.group]) / to.of_node});
  if (leaf_of(sender) != leaf_of(receiver)) {
    path.bytes_per_s /= crowding(std::max(from.leaf_share, to.leaf_share));
  }
  return path;
}

Path Links::tensor(size_t group, int tensor_ranks) const {
  Path slowest = kFastest;
  for (int i = 0; i < tensor_ranks && tensor_ranks > 1; ++i) {
    slowest = slower(slowest, inside({group, 0, i}, {group, 0, (i + 1) % tensor_ranks}));
  }
  return slowest;
}

// A ring visits a node's ranks before it leaves the node, so each group sends one stream out of
// each of its nodes, over all NICs together. Streams share them: those of the tensor ranks, and of
// all stages that have replicas in the node and others elsewhere. A ring leaves a leaf only from
// the last of its replicas there: these are on all nodes that the stages take, or, with replicas
// that fill nodes, on one for each stage.
Links::RingShare Links::ring_share(const PlacedLayout& layout, const Run& run, int devices) const {
  const int leaf = std::max(1, cluster_.fabric.leaf_nodes) * devices;
  const int side_by_side = replicas_side_by_side(layout, devices);
  const int stretch = layout.tensor * side_by_side;
  int streams = layout.tensor, nodes = 1;
  if (stretch < devices && side_by_side < layout.replicas()) {
    const int all_stages = layout.tensor * run.pipeline_ranks;
    streams = std::max(layout.tensor, std::min(all_stages, devices / side_by_side));
    nodes = std::max(1, stretch * run.pipeline_ranks / devices);
  } else if (side_by_side < layout.replicas()) {
    nodes = std::clamp(leaf / stretch, 1, run.pipeline_ranks);
  }
  return {streams, static_cast<double>(nodes) * devices / leaf};
}

Path Links::ring_hop(const PlacedLayout& layout, const Run& run, const Seat& from,
                     const Seat& to) const {
  if (from.group == to.group && from.node == to.node) {
    const bool beside = layout.placement.near != Near::pipeline;
    return inside(from, to, layout.tensor * (beside ? 1 : run.pipeline_ranks));
  }
  const NodeGroup& nodes = cluster_.groups[from.group];
  const NodeGroup& others = cluster_.groups[to.group];
  const RingShare share = ring_share(layout, run, nodes.devices);
  Path path = between(from, to, {1, 0}, {1, 0});
  path.bytes_per_s = kNetworkEfficiency * std::min(uplink(nodes), uplink(others)) / share.streams;
  if (leaf_of(node_of(from)) != leaf_of(node_of(to)))
    path.bytes_per_s /= crowding(share.leaf_share);
  if (nodes.link_bytes_per_s > 0) {
    path.bytes_per_s =
        std::min(path.bytes_per_s, nodes.link_bytes_per_s * nodes.device.link_efficiency);
  }
  if (cluster_.fabric.switch_reduction) path.reduced_bytes_per_s = path.bytes_per_s;
  return path;
}

Path Links::data(const PlacedLayout& layout) const {
  Path slowest = kFastest;
  if (layout.data == 1) return slowest;
  int first = 0;
  for (const Run& run : layout.placement.runs) {
    // Rings that start as far into a leaf's devices as the first one see the same paths again.
    const int leaf = std::max(1, cluster_.fabric.leaf_nodes) * cluster_.groups[run.group].devices;
    const int devices = cluster_.groups[run.group].devices;
    const int shift = layout.tensor * replicas_side_by_side(layout, devices);
    const bool alike = layout.placement.sets.empty();
    const int rings =
        alike ? std::min(run.pipeline_ranks, leaf / std::gcd(leaf, shift)) : run.pipeline_ranks;
    for (int p = first; p < first + rings; ++p) {
      for (int d = 0; d < layout.data; ++d) {
        const Seat from = seat_of(cluster_, layout, {0, d, p});
        const Seat to = seat_of(cluster_, layout, {0, (d + 1) % layout.data, p});
        slowest = slower(slowest, ring_hop(layout, run, from, to));
      }
    }
    first += run.pipeline_ranks;
  }
  return slowest;
}

// Where a stage ends inside a node or a leaf, rings of the next one leave it as well.
double Links::rings_at_most(const PlacedLayout& layout, double bytes) const {
  const int of_stage = layout.tensor * layout.replicas();
  double most = 0;
  for (const Run& run : layout.placement.runs) {
    const NodeGroup& nodes = cluster_.groups[run.group];
    const RingShare share = ring_share(layout, run, nodes.devices);
    const bool whole_nodes = of_stage % nodes.devices == 0;
    const bool whole_leaves =
        of_stage % (std::max(1, cluster_.fabric.leaf_nodes) * nodes.devices) == 0;
    const int streams = whole_nodes ? share.streams : std::min(nodes.devices, 2 * share.streams);
    most = std::max(most, crowding(whole_leaves ? share.leaf_share : 1) * streams * bytes /
                              node_bytes_per_s(nodes));
  }
  return most;
}

double Links::messages_at_most(const PlacedLayout& layout, double bytes) const {
  double most = 0;
  for (const Run& run : layout.placement.runs) {
    const NodeGroup& nodes = cluster_.groups[run.group];
    most = std::max(most, crowding(1) * nodes.devices * bytes / node_bytes_per_s(nodes));
  }
  return most;
}

// Of a stage's ranks those in one node send at once, and those nodes of a leaf that hold any.
Links::Senders Links::senders(const PlacedLayout& layout, const Run& run) const {
  const int devices = cluster_.groups[run.group].devices;
  const int leaf_nodes = std::max(1, cluster_.fabric.leaf_nodes);
  const int all = layout.tensor * layout.replicas();
  const int side_by_side = replicas_side_by_side(layout, devices);
  const int stretch = layout.tensor * side_by_side;   // of the stage's ranks
  const int distance = stretch * run.pipeline_ranks;  // from one stretch to the next
  const int in_node = std::min(all, std::min(stretch, devices) * std::max(1, devices / distance));
  const int stretches =
      std::clamp(leaf_nodes * devices / distance, 1, std::max(1, layout.replicas() / side_by_side));
  const double nodes = static_cast<double>(stretch) * stretches / in_node;
  return {in_node, std::max(1.0, nodes) / leaf_nodes};
}

Path Links::hop(const PlacedLayout& layout, int from, int to) const {
  const Run& here = layout.run_of(from);
  const Run& there = layout.run_of(to);
  if (&here == &there) return hops(layout, from, 1, to - from);
  const Senders senders = this->senders(layout, here), receivers = this->senders(layout, there);
  Path slowest = kFastest;
  for (int d = layout.first_replica(); d < layout.first_replica() + layout.replicas(); ++d) {
    const Seat a = seat_of(cluster_, layout, {0, d, from});
    const Seat b = seat_of(cluster_, layout, {0, d, to});
    slowest = slower(slowest, between(a, b, senders, receivers));
  }
  return slowest;
}

// Ranks that sit alike in their leaf, or on a node where there is none, see the same path to others
// that are as far from them: one of each kind is looked at.
Path Links::hops(const PlacedLayout& layout, int first, int count, int behind) const {
  const Run& run = layout.run_of(first);
  const Senders senders = this->senders(layout, run);
  const int devices = cluster_.groups[run.group].devices;
  const int places = std::max(1, cluster_.fabric.leaf_nodes) * devices;
  const int together = replicas_side_by_side(layout, devices);
  // Replicas come in rounds of so many side by side, each round a stride behind the one before.
  const int stride = layout.tensor * together * run.pipeline_ranks;
  const int rounds =
      std::min((layout.replicas() + together - 1) / together, places / std::gcd(places, stride));
  std::vector<bool> seen(static_cast<size_t>(places), false);
  int left = places / layout.tensor;
  Path slowest = kFastest;
  for (int round = 0; round < rounds; ++round) {
    for (int p = first; p < first + count; ++p) {
      for (int i = 0; i < std::min(together, places); ++i) {
        const int d = layout.first_replica() + together * round + i;
        const Seat a = seat_of(cluster_, layout, {0, d, p});
        const auto place = static_cast<size_t>((a.node * devices + a.device) % places);
        if (seen[place]) continue;
        seen[place] = true;
        const Seat b = seat_of(cluster_, layout, {0, d, p + behind});
        slowest = slower(slowest, between(a, b, senders, senders));
        if (--left == 0) return slowest;
      }
    }
  }
  return slowest;
}

Path Links::pipeline(const PlacedLayout& layout) const {
  Path slowest = kFastest;
  int first = 0;
  for (const Run& run : layout.placement.runs) {
    if (first > 0) slowest = slower(slowest, hop(layout, first - 1, first));
    if (run.pipeline_ranks > 1) {
      slowest = slower(slowest, hops(layout, first, run.pipeline_ranks - 1, 1));
    }
    first += run.pipeline_ranks;
  }
  if (layout.chunks > 1 && first > 1) slowest = slower(slowest, hop(layout, first - 1, 0));
  return slowest;
}

// Below one leaf, and where the tensor ranks of one replica alone send from a node.
Path Links::between_runs(const PlacedLayout& layout) const {
  Path slowest = kFastest;
  const std::vector<Run>& runs = layout.placement.runs;
  for (size_t i = 1; i < runs.size(); ++i) {
    const NodeGroup& from = cluster_.groups[runs[i - 1].group];
    const NodeGroup& to = cluster_.groups[runs[i].group];
    const Fabric& fabric = cluster_.fabric;
    const bool leaves = fabric.kind == FabricKind::tree;
    const double rate = std::min({from.nic_bytes_per_s, to.nic_bytes_per_s,
                                  uplink(from) / layout.tensor, uplink(to) / layout.tensor});
    slowest = slower(
        slowest, {leaves ? std::min(fabric.latency_s, fabric.spine_latency_s) : fabric.latency_s,
                  kNetworkEfficiency * rate});
  }
  return slowest;
}

Path Links::ends(const PlacedLayout& layout) const {
  return hop(layout, 0, layout.pipeline - 1);
}

}  // namespace trireme
