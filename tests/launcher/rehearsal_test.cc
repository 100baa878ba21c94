#include "launcher/rehearsal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "launcher/progress.h"
#include "launcher/run_report.h"
#include "planner/schedules/schedules.h"
#include "tests/launcher/scripted_run.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Four pipeline ranks that take eight micro-batches of 1000 tokens with 1f1b, planned for another
// machine.
Plan planned() {
  Plan plan;
  plan.device = "H100-SXM-80GB";
  plan.job.name = "big";
  plan.job.model.sequence = 1000;
  plan.job.training.global_batch = 8;
  plan.job.training.steps = 1000;
  plan.job.training.warmup_steps = 500;
  plan.job.checkpoint.every = 10;
  plan.layout.pipeline = 4;
  plan.layout.micro_batches = 8;
  plan.schedule = make_schedule({.name = "1f1b", .pipeline = 4, .micro_batches = 8});
  for (int s = 0; s < 4; ++s) plan.stages.push_back({.pipeline_rank = s, .layers = 1});
  plan.prediction.step_seconds = 2;
  plan.prediction.mfu = 0.5;
  plan.prediction.stages.assign(4, {0.1, 0.1, 0.1, 7});
  plan.prediction.memory_bytes_per_pipeline_rank = {4e9, 3e9, 2e9, 1e9};
  return plan;
}

std::string refusal(const Plan& plan, const RehearsalOptions& options) {
  try {
    rehearsal_of(options);
    rehearsed_plan(plan, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "";
}

TEST(RehearsedPlan, KeepsThePredictionAndTakesAFewStepsWithoutCheckpoints) {
  const Plan plan = rehearsed_plan(planned(), {});
  EXPECT_EQ(plan.prediction, planned().prediction);
  EXPECT_EQ(plan.job.training.steps, 3);
  EXPECT_EQ(plan.job.checkpoint.every, 0);
  EXPECT_EQ(rehearsed_plan(planned(), {.steps = 7}).job.training.steps, 7);
}

// 1F1B: (m + p - 1)(tF + tB) = 11 * 0.04, and c(2(p - 2) + 2m(p - 1)/p) = 16 c for the hops.
TEST(RehearsedPlan, OpTimesBringTheirOwnPrediction) {
  const Plan plan = rehearsed_plan(planned(), {.op_times = "f=0.01,i=0.02,w=1e-2"});
  EXPECT_NEAR(plan.prediction.step_seconds, 0.44, 1e-12);
  EXPECT_NEAR(plan.prediction.bubble_fraction, 3.0 / 11, 1e-12);
  EXPECT_NEAR(plan.prediction.tokens_per_second, 8000 / 0.44, 1e-6);
  EXPECT_NEAR(plan.prediction.mfu, 0.5 * 2 / 0.44, 1e-9);
  EXPECT_EQ(plan.prediction.stages[3], (StagePrediction{0.01, 0.02, 0.01, 7}));
  const Plan hops = rehearsed_plan(planned(), {.op_times = "f=0.01,i=0.02,w=0.01,hop=0.001"});
  EXPECT_NEAR(hops.prediction.step_seconds, 0.44 + 16 * 0.001, 1e-12);
}

// Two replicas, of eight and four micro-batches: (8 + 3) * 0.04 and (4 + 3) * 0.04 s, of which each
// of their four ranks works 8 * 0.04 and 4 * 0.04.
TEST(RehearsedPlan, OfUnequalReplicasTheSlowestMakesTheStep) {
  Plan plan = planned();
  plan.layout.data = 2;
  plan.layout.shares = {{1, 8}, {1, 4}};
  plan.job.training.global_batch = 12;
  plan.other_schedules = {make_schedule({.name = "1f1b", .pipeline = 4, .micro_batches = 4})};
  EXPECT_THAT(refusal(plan, {}), HasSubstr("does not say what its ops take"));
  const Plan timed = rehearsed_plan(plan, {.op_times = "f=0.01,i=0.02,w=0.01"});
  EXPECT_NEAR(timed.prediction.step_seconds, 11 * 0.04, 1e-12);
  EXPECT_NEAR(timed.prediction.bubble_fraction, 1 - 12.0 / 22, 1e-12);
  EXPECT_EQ(timed.times_of(1).stages[0], (StagePrediction{0.01, 0.02, 0.01, 0}));
  plan.prediction.other_shares.emplace_back().stages.assign(4, {0.2, 0.2, 0.2, 7});
  EXPECT_EQ(rehearsed_plan(plan, {}).prediction, plan.prediction);
  plan.other_schedules = {
      make_schedule({.name = "forward-only", .pipeline = 4, .micro_batches = 4})};
  EXPECT_THAT(refusal(plan, {}), HasSubstr("some shares have backwards, some none"));
}

TEST(RehearsedPlan, WhatMakesNoSenseIsRefused) {
  const auto op_times = [](const std::string& text) {
    return refusal(planned(), {.op_times = text});
  };
  for (const char* text :
       {"f", "f=", "f=x", "f=1s", "f=-1", "f=nan", "f=inf", "g=1", "=1", "f=1,,"}) {
    EXPECT_THAT(op_times(text), HasSubstr("--op-times: found")) << text;
  }
  EXPECT_THAT(op_times("f=0"), HasSubstr("ops that take time"));
  for (const double scale : {0.0, -1.0, 1.5, std::nan("")}) {
    EXPECT_THAT(refusal(planned(), {.wire_scale = scale}), HasSubstr("--wire-scale"));
  }
  for (const double scale : {0.0, -1.0, 1e9, std::nan("")}) {
    EXPECT_THAT(refusal(planned(), {.time_scale = scale}), HasSubstr("--time-scale"));
  }
  EXPECT_THAT(refusal(planned(), {.steps = 0}), HasSubstr("--steps: found 0"));

  Plan plan = planned();
  plan.prediction.stages.clear();
  EXPECT_THAT(refusal(plan, {}), HasSubstr("does not say what its ops take"));
  EXPECT_EQ(refusal(plan, {.op_times = "f=1,i=1,w=1"}), "");
  plan = planned();
  plan.layout.data = 129;
  EXPECT_THAT(refusal(plan, {}), HasSubstr("516 ranks"));
  plan = planned();
  std::swap(plan.schedule.ranks[3][0], plan.schedule.ranks[3][1]);
  EXPECT_THAT(refusal(plan, {}), HasSubstr("cannot run"));
}

TEST(RehearsalFile, ReadsBackAndIsAbsentFromATraining) {
  const testing::ScratchRun run;
  EXPECT_FALSE(find_rehearsal({run.path()}));
  const Rehearsal rehearsal{0.1, 1.0 / 3};
  std::ofstream(RunDirectory{run.path()}.rehearsal()) << to_toml(rehearsal);
  EXPECT_EQ(find_rehearsal({run.path()}), rehearsal);
}

TEST(RehearsalReport, ComparesWithThePredictionAndHasNoLoss) {
  const Plan plan = planned();
  RunTotals totals;
  const nlohmann::json step = {{"step", 0},
                               {"step_seconds", 2.02},
                               {"tokens_per_second", 4000},
                               {"bubble_fraction", 0.25},
                               {"slipped_seconds", 0.004}};
  totals.add(step);
  EXPECT_THAT(progress_line(step, 3, -1), ::testing::StartsWith("rehearsal: step 1/3  4000 tok"));
  RunOutcome outcome;
  outcome.summary = {{"peak_bytes_per_pipeline_rank", {3.5e9, 3.6e9, 1e9, 1e9}}};
  const RunReport report{plan, outcome, totals, "/run", "", 6, true};
  const std::string text = summary_text(report);
  EXPECT_THAT(text, HasSubstr("rehearsed 1 steps of big on 4 emulated H100-SXM-80GB in 6s"));
  EXPECT_THAT(text, HasSubstr("2.02 s rehearsed, 2 s predicted (+1.0 %)"));
  EXPECT_THAT(text, HasSubstr("3.600 GB counted on the fullest pipeline rank, 1; 3.000 GB"));
  EXPECT_THAT(text, HasSubstr("too late by 0.004 s"));
  EXPECT_THAT(text, Not(HasSubstr("loss")));
  EXPECT_TRUE(to_json(report)["last_loss"].is_null());
  EXPECT_EQ(to_json(report)["rehearsal"], true);
}

}  // namespace
}  // namespace trireme
