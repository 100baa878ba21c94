#include "planner/summary.h"

#include <gmock/gmock.h>

#include "planner/search.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

// Sixteen nodes of four devices, four nodes below a leaf; tensor 4 x pipeline 4 x data 4 puts a
// tensor group into a node, the replicas of a stage into one leaf, and a stage per leaf.
Plan pinned_plan(const Cluster& cluster) {
  Job job = gpt2_job(gpt2_model(8, 1024, 8, 1000, 128), 32);
  for (const char* pin : {"tensor=4", "pipeline=4", "data=4", "micro_batch=1", "schedule=1f1b"}) {
    set_pin(job.pins, pin);
  }
  return find_plan(job, cluster, {}).plan;
}

Cluster tree() {
  Cluster cluster = round_cluster(16, 4, 80);
  cluster.fabric = {.kind = FabricKind::tree, .leaf_nodes = 4};
  return cluster;
}

TEST(AxisSpans, AreThoseOfThePlacement) {
  const std::vector<AxisSpan> spans = axis_spans(pinned_plan(tree()), tree());
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[0].axis, "tensor");
  EXPECT_EQ(spans[0].ranks, 4);
  EXPECT_EQ(spans[0].nodes, 1);
  EXPECT_EQ(spans[1].axis, "data");
  EXPECT_EQ(spans[1].nodes, 4);
  EXPECT_EQ(spans[1].leaves, 1);
  EXPECT_EQ(spans[2].axis, "pipeline");
  EXPECT_EQ(spans[2].nodes, 4);
  EXPECT_EQ(spans[2].leaves, 4);
}

TEST(MemoryByRank, AddsUpToThePrediction) {
  const Plan plan = pinned_plan(tree());
  const std::vector<RankMemory> ranks = memory_by_rank(plan, tree());
  ASSERT_EQ(ranks.size(), 4U);
  for (size_t p = 0; p < ranks.size(); ++p) {
    EXPECT_EQ(ranks[p].parts.total(), plan.prediction.memory_bytes_per_pipeline_rank[p]);
    EXPECT_EQ(ranks[p].device_bytes, 80e9);
  }
}

TEST(Bottleneck, IsTheLargestShareAndNamesTheNext) {
  Plan plan = pinned_plan(tree());
  plan.prediction.stages.clear();
  plan.prediction.step_seconds = 10;
  plan.prediction.breakdown = {{"forward", 1},
                               {"backward", 2},
                               {"tensor_communication", 5},
                               {"pipeline_idle", 1},
                               {"unheard_of", 1}};
  EXPECT_EQ(bottleneck(plan),
            "Communication among 4 tensor ranks takes 50.0 % of the step; next is compute with "
            "30.0 %.");
  plan.prediction.breakdown = {{"forward", 3}, {"backward", 6}, {"unheard_of", 1}};
  EXPECT_EQ(bottleneck(plan), "Compute takes 90.0 % of the step; next is unheard of with 10.0 %.");
}

// One stage of four works half as much again as each of the others: 6 / ((4 + 4 + 4 + 6) / 4) is a
// third above the average.
TEST(Bottleneck, NamesThePipelineRankThatSetsThePace) {
  Plan plan = pinned_plan(tree());
  ASSERT_EQ(plan.prediction.stages.size(), 4U);
  for (StagePrediction& stage : plan.prediction.stages) stage = {1, 2, 1, 0};
  plan.prediction.stages[2] = {2, 2, 2, 0};
  plan.prediction.step_seconds = 10;
  plan.prediction.breakdown = {{"forward", 3}, {"backward", 7}};
  EXPECT_THAT(bottleneck(plan), HasSubstr("pipeline rank 2 with 33.3 % more work"));
}

// 64 devices at 2.25 for an hour are 144 per hour, 0.04 a second; at 2 M tokens a second that is
// 0.02 for a million.
TEST(Cost, IsThatOfTheDevicesForTheTimeOfAMillionTokens) {
  Cluster cluster = tree();
  Plan plan = pinned_plan(cluster);
  EXPECT_EQ(cost_per_million_tokens(plan, cluster), 0);
  cluster.groups[0].price_per_device_hour = 2.25;
  plan.prediction.tokens_per_second = 2e6;
  EXPECT_NEAR(cost_per_million_tokens(plan, cluster), 0.02, 1e-12);
}

}  // namespace
}  // namespace trireme
