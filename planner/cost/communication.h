#pragma once

#include "planner/placement.h"
#include "topology/cluster.h"

namespace trireme {

// The time of one all-reduce among n ranks whose slowest neighbouring path is given, the cheaper of
//   ring: 2(n-1) latency + 2(n-1)/n bytes/bandwidth        (Patarasuk and Yuan 2009)
//   tree: 2 log2(n) latency + 2 bytes/bandwidth            (two trees: Sanders et al. 2009)
//   switch: 2 latency + bytes/rate, where switches add up   (Graham et al. 2016, SHARP)
double all_reduce_seconds(int n, double bytes, const Path& slowest);

// What one of the ranks sends meanwhile: on a ring or a tree 2(n-1)/n of the bytes on average, to
// switches that add up each byte once.
double all_reduce_sends(int n, double bytes, const Path& slowest);

// A reduce-scatter and an all-gather of as much, which are the steps of the ring or the tree.
double scatter_gather_seconds(int n, double bytes, const Path& slowest);
double scatter_gather_sends(int n, double bytes);

double message_seconds(double bytes, const Path& path);

// The paths of a layout's communication. Bandwidths are what a message gets while all ranks of the
// layout do the same thing: the ranks of a node share its uplink, the nodes of a leaf the leaf's.
class Links {
 public:
  // Keeps a reference to `cluster`, which must outlive it.
  explicit Links(const Cluster& cluster) : cluster_(cluster) {}

  // Between neighbours of a tensor group on this kind of node.
  Path tensor(size_t group, int tensor_ranks) const;
  Path data(const PlacedLayout& layout) const;      // the slowest of all data groups
  Path pipeline(const PlacedLayout& layout) const;  // the slowest of all stage boundaries
  // No hop from a run to the next is faster, however many pipeline ranks they have.
  Path between_runs(const PlacedLayout& layout) const;
  // Between the first and the last pipeline rank: tied embeddings.
  Path ends(const PlacedLayout& layout) const;
  // Of one node, where every device sends to the one that is so far from it. Those below one PCIe
  // switch share its uplink.
  Path inside(const Seat& a, const Seat& b, int apart = 1) const;
  Node node_of(const Seat& seat) const;
  int leaf_of(Node node) const;  // 0 where the fabric has no leaves
  // No node's NICs and no leaf's uplinks take longer for the rings of data groups whose ranks send
  // so many bytes, nor for messages to other stages when ranks send so many.
  double rings_at_most(const PlacedLayout& layout, double bytes) const;
  double messages_at_most(const PlacedLayout& layout, double bytes) const;
  // Out of such a node, and out of a leaf of such nodes.
  double node_bytes_per_s(const NodeGroup& nodes) const;
  double leaf_bytes_per_s(const NodeGroup& nodes) const;

 private:
  // By how much messages to other leaves slow down when this share of a leaf's nodes sends them.
  double crowding(double leaf_share) const;
  // Rings out of a node, and of a leaf's nodes those from which rings leave it.
  struct RingShare {
    int streams = 1;
    double leaf_share = 1;
  };
  RingShare ring_share(const PlacedLayout& layout, const Run& run, int devices) const;
  Path ring_hop(const PlacedLayout& layout, const Run& run, const Seat& from, const Seat& to) const;
  // Ranks of a stage, which send and receive at once.
  struct Senders {
    int of_node = 1;
    double leaf_share = 1;  // of the leaf's nodes
  };
  Senders senders(const PlacedLayout& layout, const Run& run) const;
  // One rank to another while so many messages leave each node like the one's and reach each node
  // like the other's.
  Path between(const Seat& a, const Seat& b, const Senders& from, const Senders& to) const;
  // The slowest of all replicas from one pipeline rank to another, and within a run from each of
  // `count` pipeline ranks to the one so far behind it.
  Path hop(const PlacedLayout& layout, int from, int to) const;
  Path hops(const PlacedLayout& layout, int first, int count, int behind) const;

  const Cluster& cluster_;
};

}  // namespace trireme
