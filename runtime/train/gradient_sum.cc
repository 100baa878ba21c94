#include "runtime/train/gradient_sum.h"

#include <algorithm>

#include "runtime/comm/communicator.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

int64_t first_leaf(TreeNode node) {
  return static_cast<int64_t>(node.index) << node.level;
}

int64_t end_leaf(TreeNode node, int total) {
  return std::min<int64_t>(static_cast<int64_t>(node.index + 1) << node.level, total);
}

TreeNode left_child(TreeNode node) {
  return {node.level - 1, 2 * node.index};
}
TreeNode right_child(TreeNode node) {
  return {node.level - 1, 2 * node.index + 1};
}

TreeNode top_node(int total) {
  int level = 0;
  while ((int64_t{1} << level) < total) ++level;
  return {level, 0};
}

void collect_roots(TreeNode node, Range leaves, int total, std::vector<TreeNode>& roots) {
  const int64_t begin = first_leaf(node);
  const int64_t end = end_leaf(node, total);
  if (begin >= end || end <= leaves.begin || begin >= leaves.end) return;
  if (begin >= leaves.begin && end <= leaves.end) {
    roots.push_back(node);
    return;
  }
  collect_roots(left_child(node), leaves, total, roots);
  collect_roots(right_child(node), leaves, total, roots);
}

}  // namespace

std::vector<TreeNode> tree_roots(Range leaves, int total) {
  std::vector<TreeNode> roots;
  collect_roots(top_node(total), leaves, total, roots);
  return roots;
}

GradientSum::GradientSum(Device& device, Transport& transport, const StageParameters& parameters,
                         const Setup& setup)
    : device_(device), transport_(transport), parameters_(parameters), setup_(setup) {
  make_buckets();
}

void GradientSum::make_buckets() {
  int last = parameters_.units - 1;
  while (last >= 0) {
    Bucket bucket;
    bucket.number = static_cast<int>(buckets_.size());
    bucket.last_unit = last;
    bucket.floats.end = parameters_.unit_ranges[last].end;
    int first = last;
    while (first > 0 &&
           bucket.floats.end - parameters_.unit_ranges[first].begin < setup_.bucket_floats)
      --first;
    bucket.first_unit = first;
    bucket.floats.begin = parameters_.unit_ranges[first].begin;
    bucket.leaves_left = leaves_per_replica();
    buckets_.push_back(std::move(bucket));
    last = first - 1;
  }
}

Range GradientSum::leaves_of(int replica) const {
  return {replica * leaves_per_replica(), (replica + 1) * leaves_per_replica()};
}

int GradientSum::leaf_of(int micro_batch) const {
  const int own = setup_.reduction == Reduction::fast ? 0 : micro_batch % setup_.micro_batches;
  return leaves_of(setup_.replica).begin + own;
}

FlatRange GradientSum::share_of(const Bucket& bucket, int replica) const {
  // In whole cache lines, so that a share's loops run over whole vectors.
  constexpr size_t kLine = 16;
  const size_t lines = (bucket.floats.size() + kLine - 1) / kLine;
  const size_t begin = lines * replica / replicas() * kLine;
  const size_t end = lines * (replica + 1) / replicas() * kLine;
  return {bucket.floats.begin + begin, std::min(bucket.floats.begin + end, bucket.floats.end)};
}

uint64_t GradientSum::tag_of(const Bucket& bucket, int phase, int node) const {
  return make_tag(TagSpace::gradient, (static_cast<uint64_t>(setup_.stage) << 32) |
                                          (static_cast<uint64_t>(bucket.number) << 12) |
                                          (static_cast<uint64_t>(node) << 1) |
                                          static_cast<uint64_t>(phase));
}

float* GradientSum::target(int micro_batch) {
  const int leaf = leaf_of(micro_batch);
  const auto [found, fresh] = leaves_.try_emplace(leaf);
  if (fresh) {
    Slab slab = std::make_shared<Buffer>(device_.allocate(parameters_.gradient_count));
    if (accumulates()) device_.zero(slab->data(), slab->size());
    if (leaf == leaves_of(setup_.replica).begin) result_ = slab;
    found->second = {std::move(slab), static_cast<int>(buckets_.size())};
  }
  return found->second.slab->data();
}

void GradientSum::unit_done(int micro_batch, int unit) {
  const int leaf = leaf_of(micro_batch);
  const auto holds = [unit](const Bucket& b) {
    return unit >= b.first_unit && unit <= b.last_unit;
  };
  Bucket& bucket = *std::find_if(buckets_.begin(), buckets_.end(), holds);
  const int micro_batches_per_leaf = setup_.micro_batches / leaves_per_replica();
  const int units = bucket.last_unit - bucket.first_unit + 1;
  const auto left = bucket.units_left.try_emplace(leaf, units * micro_batches_per_leaf).first;
  if (--left->second > 0) return;
  bucket.units_left.erase(left);
  add_leaf(bucket, leaf);
  if (--bucket.leaves_left == 0) start_exchange(bucket);
}

// Adds the leaf to its sibling if that is there, the sum to its sibling, and so on. The left one of
// two takes the sum, so the first leaf's memory ends up with everything.
void GradientSum::add_leaf(Bucket& bucket, int leaf) {
  const auto found = leaves_.find(leaf);
  TreeNode node{0, leaf};
  Slab sum = found->second.slab;
  if (--found->second.buckets_left == 0) leaves_.erase(found);
  while (node != top_node(total_leaves())) {
    const bool is_left = node.index % 2 == 0;
    const TreeNode sibling{node.level, is_left ? node.index + 1 : node.index - 1};
    if (first_leaf(sibling) < total_leaves()) {
      const auto other = bucket.sums.find(sibling);
      if (other == bucket.sums.end()) break;
      Slab left = is_left ? sum : other->second;
      const Slab right = is_left ? other->second : sum;
      device_.add(left->data() + bucket.floats.begin, right->data() + bucket.floats.begin,
                  bucket.floats.size());
      bucket.sums.erase(other);
      sum = std::move(left);
    }
    node = {node.level + 1, node.index / 2};
  }
  bucket.sums[node] = std::move(sum);
}

// Sends every other replica its share of what this one could not add further, and asks for its own
// share of theirs.
void GradientSum::start_exchange(Bucket& bucket) {
  for (int replica = 0; replica < replicas(); ++replica) {
    if (replica == setup_.replica) continue;
    const FlatRange theirs = share_of(bucket, replica);
    int number = 0;
    for (const auto& node : tree_roots(leaves_of(setup_.replica), total_leaves())) {
      const Slab& slab = bucket.sums.at(node);
      if (theirs.size() > 0) {
        transport_.send(setup_.replicas[replica], tag_of(bucket, 0, number),
                        {slab->data() + theirs.begin, theirs.size()}, slab);
      }
      ++number;
    }
    const FlatRange mine = share_of(bucket, setup_.replica);
    if (mine.size() == 0) continue;
    number = 0;
    for (const auto& node : tree_roots(leaves_of(replica), total_leaves())) {
      Arrival arrival{node, device_.allocate(mine.size()), nullptr};
      arrival.work = transport_.receive(setup_.replicas[replica], tag_of(bucket, 0, number++),
                                        arrival.data.span());
      bucket.arrivals.push_back(std::move(arrival));
    }
  }
}

float* GradientSum::sum_of(TreeNode node, std::map<TreeNode, float*>& known, size_t count) const {
  const auto found = known.find(node);
  if (found != known.end()) return found->second;
  TRIREME_CHECK(node.level > 0);
  float* left = sum_of(left_child(node), known, count);
  if (first_leaf(right_child(node)) < total_leaves()) {
    device_.add(left, sum_of(right_child(node), known, count), count);
  }
  return left;
}

void GradientSum::finish_share(Bucket& bucket) {
  const FlatRange mine = share_of(bucket, setup_.replica);
  std::map<TreeNode, float*> known;
  for (const auto& [node, slab] : bucket.sums) known[node] = slab->data() + mine.begin;
  for (auto& arrival : bucket.arrivals) {
    arrival.work->wait();
    known[arrival.node] = arrival.data.data();
  }
  if (mine.size() > 0) {
    float* to = result_->data() + mine.begin;
    const float* total = sum_of(top_node(total_leaves()), known, mine.size());
    if (total != to) device_.copy(to, total, mine.size());
  }
  bucket.arrivals.clear();
  bucket.sums.clear();
}

// The share of another replica arrives where this replica's own part of it still lies. That part
// has left by then: the other one needed it to finish the share.
void GradientSum::start_spread(Bucket& bucket, std::vector<std::unique_ptr<Work>>& arriving) {
  if (replicas() == 1) return;
  const FlatRange mine = share_of(bucket, setup_.replica);
  // A copy leaves: the caller may write to the result while the message is still under way.
  const Activation sent = device_.activation(mine.size());
  device_.copy(sent->data(), result_->data() + mine.begin, mine.size());
  for (int replica = 0; replica < replicas(); ++replica) {
    if (replica == setup_.replica) continue;
    const Rank rank = setup_.replicas[replica];
    const FlatRange theirs = share_of(bucket, replica);
    if (theirs.size() > 0) {
      arriving.push_back(transport_.receive(rank, tag_of(bucket, 1, 0),
                                            {result_->data() + theirs.begin, theirs.size()}));
    }
    if (mine.size() > 0) transport_.send(rank, tag_of(bucket, 1, 0), sent->span(), sent);
  }
}

float* GradientSum::finish() {
  std::vector<std::unique_ptr<Work>> arriving;
  for (auto& bucket : buckets_) {
    TRIREME_CHECK(bucket.leaves_left == 0);
    finish_share(bucket);
    start_spread(bucket, arriving);
  }
  for (auto& work : arriving) work->wait();
  return result_->data();
}

void GradientSum::reset() {
  for (auto& bucket : buckets_) bucket.leaves_left = leaves_per_replica();
  leaves_.clear();  // a stage without parameters has no bucket that would take them
  result_.reset();
}

}  // namespace trireme
