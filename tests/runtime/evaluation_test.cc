#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

// Chunk by chunk, all micro-batches.
Plan forward_only(const Job& job, const Degrees& degrees) {
  Plan plan = plan_for(job, degrees);
  plan.schedule.name = "forward-only";
  for (auto& row : plan.schedule.ranks) {
    std::erase_if(row, [](const Op& op) { return op.kind != OpKind::forward; });
    std::stable_sort(row.begin(), row.end(),
                     [](const Op& a, const Op& b) { return a.stage < b.stage; });
  }
  return plan;
}

TEST(Evaluation, AScheduleOfForwardsReportsLossesAndChangesNoWeight) {
  for (const Job& job : {tiny_gpt(3), tiny_llama(3)}) {
    RunOptions none;
    none.until_step = 0;
    const auto before = run_in_memory(plan_for(job, {}), none);
    const auto trained = run_in_memory(plan_for(job, {}));
    const auto reference = run_in_memory(forward_only(job, {}));
    EXPECT_EQ(reference.reports[0].loss, trained.reports[0].loss);
    EXPECT_NE(reference.reports[2].loss, trained.reports[2].loss);
    for (const Degrees& degrees : {Degrees{1, 1, 1, 1, "1f1b", 1}, Degrees{1, 4, 1, 1, "1f1b", 1},
                                   Degrees{1, 2, 2, 2, "interleaved", 1}}) {
      const auto run = run_in_memory(forward_only(job, degrees));
      ASSERT_EQ(run.reports.size(), 3U);
      for (size_t i = 0; i < run.reports.size(); ++i) {
        EXPECT_EQ(run.reports[i].loss, reference.reports[i].loss) << to_string(degrees);
        EXPECT_FALSE(run.reports[i].grad_norm.has_value());
        EXPECT_FALSE(run.reports[i].learning_rate.has_value());
      }
      for (const auto& [name, values] : before.weights)
        EXPECT_TRUE(run.weights.at(name) == values) << name;
    }
  }
}

TEST(Evaluation, NothingIsSaved) {
  const TemporaryDirectory run;
  std::filesystem::create_directories(run.path() + "/checkpoints");
  RunOptions options;
  options.save_into = run.path();
  run_in_memory(forward_only(tiny_llama(1), {1, 2, 1, 1, "1f1b", 1}), options);
  EXPECT_TRUE(std::filesystem::is_empty(run.path() + "/checkpoints"));
}

}  // namespace
}  // namespace trireme::test
