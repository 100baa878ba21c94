// PipeDream: an update after every backward, and each micro-batch goes back with the weights that
// it went forward with.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/runtime/delayed_updates.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

Job untied(Job job) {
  job.model.tied_embeddings = false;
  return job;
}

Plan pipedream(const Job& job, const Degrees& degrees) {
  Plan plan = plan_for(job, degrees);
  plan.schedule.name = "pipedream";
  plan.schedule.asynchronous = true;
  return plan;
}

// What the trace of a rank says: for every micro-batch of the whole run, in the order of the steps,
// the version of its forward and of its backward.
struct Versions {
  std::map<int, int> forward;
  std::map<int, int> backward;
};
std::vector<Versions> versions_of(const Plan& plan, const std::string& directory) {
  std::vector<Versions> ranks(plan.layout.pipeline);
  const int m = plan.layout.micro_batches;
  for (int r = 0; r < plan.layout.pipeline; ++r) {
    std::map<std::string, int> seen;  // how often an op came: one that comes again is a step's next
    const auto text = read_text_file(fmt::format("{}/rank-{}.json", directory, r));
    for (const auto& event : nlohmann::json::parse(text)) {
      if (event.value("cat", "") != "op") continue;
      const auto& details = event.at("args");
      const int i = seen[event.at("name")]++ * m + details.at("micro_batch").get<int>();
      auto& versions = details.at("kind") == "F" ? ranks[r].forward : ranks[r].backward;
      versions[i] = details.at("version");
    }
  }
  return ranks;
}

// Stage s of p runs micro-batch i forward after the backward of micro-batch i-n, n = min(p-s, m):
// with weights that have seen max(0, i-(n-1)) updates. The last stage is never behind.
TEST(Asynchronous, AMicroBatchIsAsManyUpdatesBehindAsOthersAreInFlight) {
  for (const auto& [pipeline, micro_batch] : {std::pair(4, 1), std::pair(3, 2), std::pair(4, 6)}) {
    const TemporaryDirectory traces;
    const Plan plan = pipedream(tiny_llama(3), {1, pipeline, 1, 1, "1f1b", micro_batch});
    RunOptions options;
    options.trace_directory = traces.path();
    run_in_memory(plan, options);
    const int m = plan.layout.micro_batches;
    const auto ranks = versions_of(plan, traces.path());
    for (int s = 0; s < pipeline; ++s) {
      ASSERT_EQ(ranks[s].forward.size(), static_cast<size_t>(3 * m));
      ASSERT_EQ(ranks[s].backward.size(), static_cast<size_t>(3 * m));
      const int n = std::min(pipeline - s, m);
      for (int i = 0; i < 3 * m; ++i) {
        EXPECT_EQ(ranks[s].forward.at(i), std::max(0, i - (n - 1))) << "stage " << s << " F" << i;
        EXPECT_EQ(ranks[s].backward.at(i), ranks[s].forward.at(i)) << "stage " << s << " B" << i;
      }
    }
  }
}

void equals_delayed_updates(const Plan& plan) {
  const auto expected = train_with_delayed_updates(plan);
  const auto run = run_in_memory(plan);
  ASSERT_EQ(run.reports.size(), expected.losses.size());
  for (size_t i = 0; i < run.reports.size(); ++i) {
    EXPECT_EQ(run.reports[i].loss, expected.losses[i]) << "step " << i;
    EXPECT_FALSE(run.reports[i].grad_norm.has_value());
  }
  for (const auto& [name, values] : expected.weights)
    EXPECT_TRUE(run.weights.at(name) == values) << name;
}

TEST(Asynchronous, WeightsAreThoseOfDelayedUpdatesInOneProcessBitByBit) {
  for (const Job& job : {untied(tiny_gpt(3)), tiny_llama(3)}) {
    for (const Degrees& degrees :
         {Degrees{1, 1, 1, 1, "1f1b", 1}, Degrees{1, 2, 1, 1, "1f1b", 1},
          Degrees{1, 4, 1, 1, "1f1b", 1}, Degrees{1, 4, 1, 1, "1f1b", 6},
          Degrees{1, 3, 2, 1, "1f1b", 1}, Degrees{1, 3, 2, 1, "1f1b", 2}}) {
      SCOPED_TRACE(to_string(degrees));
      equals_delayed_updates(pipedream(job, degrees));
    }
  }
}

TEST(Asynchronous, EveryStageClipsByTheNormOfItsOwnGradient) {
  Job job = tiny_llama(2);
  job.training.clip_grad = 0.01;
  equals_delayed_updates(pipedream(job, {1, 3, 1, 1, "1f1b", 1}));
  job.training.clip_grad = 0;
  equals_delayed_updates(pipedream(job, {1, 3, 1, 1, "1f1b", 1}));
}

TEST(Asynchronous, TheStreamIsDrainedBeforeEachCheckpoint) {
  Job job = tiny_llama(5);
  job.checkpoint.every = 2;
  equals_delayed_updates(pipedream(job, {1, 3, 1, 1, "1f1b", 2}));
}

// One rank is never behind: a step of twelve micro-batches trains as twelve steps of one do, where
// the learning rate is constant. Embedding and head share one weight there.
TEST(Asynchronous, OneRankTrainsAsIfEveryMicroBatchWereAStep) {
  Job job = tiny_gpt(24);
  job.training.warmup_steps = 0;
  job.training.min_learning_rate = job.training.learning_rate;
  job.training.global_batch = 1;
  const auto steps = run_in_memory(plan_for(job, {}));
  job.training.global_batch = 12;
  job.training.steps = 2;
  const auto stream = run_in_memory(pipedream(job, {}));
  for (const auto& [name, values] : steps.weights)
    EXPECT_TRUE(stream.weights.at(name) == values) << name;
}

TEST(Asynchronous, TensorRanksAgree) {
  const Job job = tiny_llama(2);
  const auto one = run_in_memory(pipedream(job, {1, 2, 1, 1, "1f1b", 1}));
  const auto two = run_in_memory(pipedream(job, {2, 2, 1, 1, "1f1b", 1}));
  for (size_t i = 0; i < one.reports.size(); ++i)
    EXPECT_NEAR(two.reports[i].loss / one.reports[i].loss, 1, 1e-5) << i;
}

TEST(Asynchronous, ResumingWhereItWasDrainedChangesNoBit) {
  Job job = tiny_llama(4);
  job.checkpoint.every = 2;
  const Plan plan = pipedream(job, {1, 3, 1, 1, "1f1b", 1});
  const TemporaryDirectory run;
  RunOptions first;
  first.until_step = 2;
  first.save_into = run.path();
  run_in_memory(plan, first);
  RunOptions second;
  second.checkpoint_path = RunDirectory{run.path()}.checkpoint(2);
  const auto resumed = run_in_memory(plan, second);
  EXPECT_TRUE(resumed.weights == run_in_memory(plan).weights);
}

// Asked during step 1, whose end leaves micro-batches of step 2 in flight: step 2 is the last.
TEST(Asynchronous, AStreamStopsOneStepAfterItWasAsked) {
  const Plan plan = pipedream(tiny_llama(8), {1, 3, 1, 1, "1f1b", 1});
  RunOptions options;
  options.stop_in_step = 1;
  const auto run = run_in_memory(plan, options);
  ASSERT_EQ(run.reports.size(), 3U);
  EXPECT_FALSE(run.reports[1].stop);
  EXPECT_TRUE(run.reports[2].stop);
  const auto sync = run_in_memory(plan_for(tiny_llama(8), {1, 3, 1, 1, "1f1b", 1}), options);
  EXPECT_EQ(sync.reports.size(), 2U);
}

TEST(Asynchronous, WhatCannotStreamIsRefused) {
  const auto refusal = [](const Plan& plan) -> std::string {
    try {
      run_in_memory(plan);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(refusal(pipedream(tiny_gpt(1), {1, 2, 1, 1, "1f1b", 1})).find("tied embeddings"),
            std::string::npos);
  Plan growing = pipedream(tiny_llama(1), {1, 2, 1, 1, "naive", 1});  // one in flight, then two
  growing.schedule.ranks[1] = parse_csv_row("1F0,1F1,1B0,1B1", "row");
  EXPECT_NE(refusal(growing).find("stage 1"), std::string::npos);
  EXPECT_NE(refusal(pipedream(tiny_llama(1), {1, 2, 1, 2, "interleaved", 1})).find("stage 0"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme::test
