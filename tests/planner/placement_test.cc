#include "planner/placement.h"

#include <gtest/gtest.h>

#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

// Ranks of one stage at a time are counted through the devices, or all stages of one replica.
TEST(Placement, EitherAxisCanBeNear) {
  const Cluster cluster = two_kinds(1);
  const PlacedLayout data_near{{.pipeline = 2, .data = 4}, {{{0, 2}}, Near::data}};
  const PlacedLayout pipeline_near{{.pipeline = 2, .data = 4}, {{{0, 2}}, Near::pipeline}};
  EXPECT_EQ(seat_of(cluster, data_near, {0, 3, 0}), (Seat{0, 0, 3}));
  EXPECT_EQ(seat_of(cluster, data_near, {0, 3, 1}), (Seat{0, 1, 3}));
  EXPECT_EQ(seat_of(cluster, pipeline_near, {0, 3, 0}), (Seat{0, 1, 2}));
  EXPECT_EQ(seat_of(cluster, pipeline_near, {0, 3, 1}), (Seat{0, 1, 3}));
}

TEST(Placement, ARunStartsAtTheFirstDeviceOfItsNodes) {
  const PlacedLayout layout{{.pipeline = 3, .data = 2}, {{{1, 1}, {0, 2}}, Near::data}};
  EXPECT_EQ(seat_of(two_kinds(1), layout, {0, 1, 0}), (Seat{1, 0, 1}));
  EXPECT_EQ(seat_of(two_kinds(1), layout, {0, 1, 2}), (Seat{0, 0, 3}));
}

// Leaves of two nodes of four devices: the replicas of two tensor ranks that fill a node, the next
// stage on the other node of the leaf, the other replicas below the next leaf.
TEST(Placement, ReplicasMayFillANodeBeforeThePipelineIsCounted) {
  Cluster cluster = round_cluster(4, 4, 80);
  const PlacedLayout layout{{.tensor = 2, .pipeline = 2, .data = 4}, {{{0, 2}}, Near::node}};
  EXPECT_EQ(seat_of(cluster, layout, {1, 1, 0}), (Seat{0, 0, 3}));
  EXPECT_EQ(seat_of(cluster, layout, {0, 1, 1}), (Seat{0, 1, 2}));
  EXPECT_EQ(seat_of(cluster, layout, {0, 2, 0}), (Seat{0, 2, 0}));
  EXPECT_EQ(seat_of(cluster, layout, {1, 3, 1}), (Seat{0, 3, 3}));
}

// Seats of three replicas on one kind, then two on another, of two pipeline ranks each.
TEST(Placement, SetsOfReplicasStartAtTheirNodesFirstDevices) {
  Layout layout{.pipeline = 2, .data = 5, .shares = {{3, 2}, {2, 1}}};
  const Cluster cluster = two_kinds(1);
  const auto near = placed_on_sets(layout, {{1, 3}, {0, 2}}, Near::data, 1);
  EXPECT_EQ(near.micro_batches, 1);
  EXPECT_EQ(near.first_replica(), 3);
  EXPECT_EQ(near.replicas(), 2);
  EXPECT_EQ(seat_of(cluster, near, {0, 2, 1}), (Seat{1, 1, 1}));
  EXPECT_EQ(seat_of(cluster, near, {0, 4, 1}), (Seat{0, 0, 3}));
  const auto far = placed_on_sets(layout, {{1, 3}, {0, 2}}, Near::pipeline, 0);
  EXPECT_EQ(far.micro_batches, 2);
  EXPECT_EQ(seat_of(cluster, far, {0, 2, 1}), (Seat{1, 1, 1}));
  EXPECT_EQ(seat_of(cluster, far, {0, 3, 1}), (Seat{0, 0, 1}));
}

}  // namespace
}  // namespace trireme
