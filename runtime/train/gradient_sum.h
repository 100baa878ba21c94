#pragma once

#include <map>
#include <memory>
#include <vector>

#include "planner/plan/job.h"
#include "runtime/comm/transport.h"
#include "runtime/device/device.h"
#include "runtime/model/parameters.h"

namespace trireme {

// A node of the summation tree over `total` leaves: it sums leaves [index << level, (index + 1) <<
// level), as far as there are any.
struct TreeNode {
  int level = 0;
  int index = 0;
  auto operator<=>(const TreeNode&) const = default;
};

// The highest nodes whose leaves all lie in `leaves`, left to right: what is left of the tree for
// somebody who owns those leaves and adds all they can alone.
std::vector<TreeNode> tree_roots(Range leaves, int total);

// Sums one stage's gradients over the micro-batches of a step and over the data replicas.
//
// Reduction::ordered. The micro-batches of the whole step, numbered through all replicas (replica d
// owns [d*m, (d+1)*m)), are the leaves of one binary tree. Each replica adds what lies inside its
// own range as soon as both halves are there, in whatever order the schedule finishes
// micro-batches; what crosses replicas is finished after an exchange. The tree depends on the
// number of micro-batches of the step alone, so neither the schedule nor the number of replicas
// changes a bit. In flight are at most log2(m)+2 gradients when micro-batches finish in order.
// Reduction::fast. Each replica adds its micro-batches in place as they come and is one leaf.
//
// The exchange goes bucket by bucket: units of the stage whose gradients become complete together,
// sent as soon as the last micro-batch has completed them, so that it overlaps with the rest of the
// backward pass. Every replica finishes its share of the bucket and sends it to the others:
// 2(D-1)/D of the bucket per replica, more where the tree crosses replicas.
class GradientSum {
 public:
  struct Setup {
    Reduction reduction = Reduction::ordered;
    int micro_batches = 1;  // of this replica
    int replica = 0;
    std::vector<Rank> replicas;  // ranks of the data group
    int stage = 0;               // to tell messages apart
    size_t bucket_floats = 0;    // a bucket takes units until it has this many
  };
  GradientSum(Device& device, Transport& transport, const StageParameters& parameters,
              const Setup& setup);

  // Where the gradients of a micro-batch are written; `accumulates`: they must be added to what is
  // there. Numbers count modulo Setup::micro_batches, so that a stream of them needs no renaming.
  float* target(int micro_batch);
  bool accumulates() const { return setup_.reduction == Reduction::fast; }
  // A unit's gradients of one micro-batch are complete.
  void unit_done(int micro_batch, int unit);
  // Finishes all sums. The gradients then lie at the offsets of StageParameters until `reset`.
  float* finish();
  // Forgets the gradients, for the next sum.
  void reset();

 private:
  using Slab = std::shared_ptr<Buffer>;  // one flat gradient of the stage
  struct Leaf {
    Slab slab;
    int buckets_left;
  };
  struct Arrival {
    TreeNode node;
    Buffer data;  // this replica's share of the bucket
    std::unique_ptr<Work> work;
  };
  struct Bucket {
    int number = 0;
    int first_unit = 0;
    int last_unit = 0;
    FlatRange floats;
    std::map<int, int> units_left;  // by leaf, for those under way
    int leaves_left = 0;
    std::map<TreeNode, Slab> sums;  // what has been summed and not been added to anything yet
    std::vector<Arrival> arrivals;
  };

  int leaves_per_replica() const {
    return setup_.reduction == Reduction::fast ? 1 : setup_.micro_batches;
  }
  int replicas() const { return static_cast<int>(setup_.replicas.size()); }
  int total_leaves() const { return leaves_per_replica() * replicas(); }
  Range leaves_of(int replica) const;
  int leaf_of(int micro_batch) const;
  FlatRange share_of(const Bucket& bucket, int replica) const;
  uint64_t tag_of(const Bucket& bucket, int phase, int node) const;
  void make_buckets();
  void add_leaf(Bucket& bucket, int leaf);
  void start_exchange(Bucket& bucket);
  void finish_share(Bucket& bucket);
  float* sum_of(TreeNode node, std::map<TreeNode, float*>& known, size_t count) const;
  void start_spread(Bucket& bucket, std::vector<std::unique_ptr<Work>>& arriving);

  Device& device_;
  Transport& transport_;
  const StageParameters& parameters_;
  Setup setup_;
  std::vector<Bucket> buckets_;
  std::map<int, Leaf> leaves_;  // under way
  Slab result_;                 // the first leaf's, to which all others are added
};

}  // namespace trireme
