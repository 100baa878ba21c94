#include "planner/improve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/checker.h"
#include "planner/cost/memory.h"
#include "planner/summary.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

Job pipeline_job(const std::string& schedule) {
  Job job = gpt2_job(gpt2_model(14, 1024, 8, 50000, 512), 16, Dtype::bf16);
  for (const std::string& pin :
       {std::string("tensor=1"), std::string("pipeline=4"), std::string("data=1"),
        std::string("micro_batch=2"), std::string("chunks=1"), "schedule=" + schedule}) {
    set_pin(job.pins, pin);
  }
  return job;
}

PlanResult improved(const Job& job, const Cluster& cluster) {
  return improve_schedule(job, cluster, {}, find_plan(job, cluster, {}));
}

// One chunk with split backwards beats 1F1B wherever weight gradients fill the drain.
TEST(ImproveSchedule, FindsAFasterOrderOfTheSameWork) {
  const Job job = pipeline_job("1f1b");
  const Cluster cluster = round_cluster(1, 4, 80);
  const PlanResult before = find_plan(job, cluster, {});
  const PlanResult after = improved(job, cluster);
  EXPECT_EQ(after.plan.layout.schedule, "auto");
  EXPECT_TRUE(check_schedule(after.plan.schedule).legal);
  EXPECT_LT(after.plan.prediction.step_seconds, before.plan.prediction.step_seconds);
  EXPECT_THAT(after.notes.back(), HasSubstr("shorter than 1f1b"));
  Layout same = after.plan.layout;
  same.schedule = before.plan.layout.schedule;
  EXPECT_EQ(same, before.plan.layout);
  EXPECT_EQ(parse_plan(to_toml(after.plan), "plan"), after.plan);
}

// With no room for more than 1F1B holds, what is found holds no more.
TEST(ImproveSchedule, KeepsTheMemory) {
  const Job job = pipeline_job("1f1b");
  Cluster cluster = round_cluster(1, 4, 80);
  double most = 0;
  for (const RankMemory& rank : memory_by_rank(find_plan(job, cluster, {}).plan, cluster)) {
    most = std::max(most, rank.parts.total());
  }
  cluster.groups[0].device.memory_bytes = most;
  for (const RankMemory& rank : memory_by_rank(improved(job, cluster).plan, cluster)) {
    EXPECT_LE(rank.parts.total(), most);
  }
}

TEST(ImproveSchedule, LeavesWhatIsBestAlone) {
  Job job = pipeline_job("1f1b");
  set_pin(job.pins, "pipeline=1");
  const PlanResult before = find_plan(job, round_cluster(1, 4, 80), {});
  const PlanResult after = improved(job, round_cluster(1, 4, 80));
  EXPECT_EQ(after.plan, before.plan);
  EXPECT_THAT(after.notes.back(), HasSubstr("no pipeline"));
}

}  // namespace
}  // namespace trireme
