#pragma once

#include "planner/plan/layout.h"
#include "topology/cluster.h"

namespace trireme {

// The time of one all-reduce among n ranks whose slowest neighbouring path is given, the cheaper of
//   ring: 2(n-1) latency + 2(n-1)/n bytes/bandwidth        (Patarasuk and Yuan 2009)
//   tree: 2 log2(n) latency + 2 bytes/bandwidth            (two trees: Sanders et al. 2009)
double all_reduce_seconds(int n, double bytes, const Path& slowest);

double message_seconds(double bytes, const Path& path);

// The paths of a layout's communication when rank r sits on device r of one node group, devices
// counted through its nodes. Bandwidths are what a message gets while all ranks of the layout do
// the same thing: node uplinks are shared by the groups that leave a node, and leaf uplinks, for
// pipeline messages, at the fabric's oversubscription.
class Links {
 public:
  // Keeps a pointer to `cluster`, which must outlive it.
  Links(const Cluster& cluster, size_t group);

  Path tensor(int tensor_ranks) const;
  Path data(const Layout& layout) const;      // the slowest of all data groups
  Path pipeline(const Layout& layout) const;  // the slowest of all stage boundaries
  Path ends(
      const Layout& layout) const;  // between the first and the last pipeline rank: tied embeddings

 private:
  Node node_of(int rank) const;
  bool same_leaf(Node a, Node b) const;
  // One rank to another while `flows` such messages leave each node.
  Path between(int rank_a, int rank_b, int flows) const;

  const Cluster* cluster_;
  const NodeGroup* group_;
  int first_node_ = 0;
};

}  // namespace trireme
