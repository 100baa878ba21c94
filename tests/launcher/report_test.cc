#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "launcher/checkpoints.h"
#include "launcher/doing.h"
#include "launcher/exit_status.h"
#include "launcher/line_file.h"
#include "launcher/preflight.h"
#include "launcher/progress.h"
#include "launcher/run_report.h"
#include "launcher/secret.h"
#include "launcher/step_book.h"
#include "planner/plan/schedule.h"
#include "tests/launcher/scripted_run.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Json = nlohmann::json;

TEST(StepBook, MeasuresTheBubbleOverTheLongestWindow) {
  StepBook book(2, 0.25);
  EXPECT_THAT(book.metrics({{"step", 0}, {"loss", 2.0}}), IsEmpty());
  EXPECT_THAT(book.busy(0, 3, 4), IsEmpty());
  const auto lines = book.busy(0, 2, 5);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_DOUBLE_EQ(lines[0]["bubble_fraction"].get<double>(), 1 - 5.0 / (2 * 5));
  EXPECT_DOUBLE_EQ(lines[0]["predicted_bubble_fraction"].get<double>(), 0.25);
}

// 0.1 + 0.2 is a little more than 0.3, and a bubble below none would read as not measured.
TEST(StepBook, NoRankWorksLongerThanItsWindow) {
  StepBook book(1, 0);
  book.metrics({{"step", 0}});
  const auto lines = book.busy(0, 0.1 + 0.2, 0.3);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_EQ(lines[0]["bubble_fraction"], 0.0);
}

TEST(StepBook, KeepsTheOrderOfTheSteps) {
  StepBook book(1, 0);
  book.metrics({{"step", 0}});
  EXPECT_THAT(book.metrics({{"step", 1}}), IsEmpty());
  EXPECT_THAT(book.busy(1, 1, 1), IsEmpty()) << "step 0 is still open";
  EXPECT_THAT(book.busy(0, 1, 1), SizeIs(2));
}

TEST(StepBook, AMissingReportHoldsBackNoMoreThanFourSteps) {
  StepBook book(2, 0);
  std::vector<Json> lines;
  for (int step = 0; step < 5; ++step) {
    lines = book.metrics({{"step", step}});
  }
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_FALSE(lines[0].contains("bubble_fraction"));
  EXPECT_THAT(book.flush(), SizeIs(4));
  EXPECT_THAT(book.flush(), IsEmpty());
}

TEST(MetricsLine, PrintsTheLossWithNineSignificantDigits) {
  const Json line = {{"loss", 5.5451774597167969}, {"step", 3}};
  EXPECT_EQ(metrics_line(line), R"({"loss":5.54517746,"step":3})");
  EXPECT_EQ(metrics_line({{"loss", nullptr}}), R"({"loss":null})");
}

TEST(RunTotals, TakesMediansSoThatOneSlowStepDoesNotCount) {
  RunTotals totals;
  for (const double seconds : {9.0, 1.0, 1.1, 0.9, 1.0}) {
    totals.add(
        {{"step", totals.steps()}, {"loss", 5.0 - totals.steps()}, {"step_seconds", seconds}});
  }
  EXPECT_DOUBLE_EQ(totals.step_seconds(), 1.0);
  EXPECT_DOUBLE_EQ(totals.first_loss(), 5);
  EXPECT_DOUBLE_EQ(totals.last_loss(), 1);
  EXPECT_DOUBLE_EQ(totals.bubble_fraction(), -1);
}

TEST(Progress, ShowsStepLossSpeedBubbleAndTimeLeft) {
  const Json metrics = {
      {"step", 11}, {"loss", 4.12341}, {"tokens_per_second", 12345.0}, {"bubble_fraction", 0.125}};
  EXPECT_EQ(progress_line(metrics, 200, 80),
            "step 12/200  loss 4.1234  12.3k tokens/s  bubble 12.5 %  1m 20s left");
  EXPECT_EQ(progress_line({{"step", 0}}, 3, -1), "step 1/3");
}

// Nobody reads the pipe, and it is full: a run must go on.
TEST(Progress, WaitsForNobodyWhoWatches) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  fcntl(ends[1], F_SETFL, O_NONBLOCK);
  while (write(ends[1], "x", 1) == 1) {
  }
  fcntl(ends[1], F_SETFL, 0);
  std::FILE* out = fdopen(ends[1], "w");
  Progress progress(out, false, 2);
  progress.say("nobody hears this");
  progress.step({{"step", 0}, {"loss", 2.0}});
  EXPECT_EQ(progress.totals().steps(), 1);
  char byte = 0;
  while (read(ends[0], &byte, 1) == 1 && byte == 'x') {  // until the listener is back
    pollfd more{ends[0], POLLIN, 0};
    if (poll(&more, 1, 0) == 0) break;
  }
  progress.say("this is heard");
  std::array<char, 64> heard{};
  EXPECT_GT(read(ends[0], heard.data(), heard.size()), 0);
  EXPECT_STREQ(heard.data(), "this is heard\n");
  std::fclose(out);
  close(ends[0]);
}

TEST(Progress, DurationsAreShort) {
  EXPECT_EQ(short_duration(0.4), "0s");
  EXPECT_EQ(short_duration(59.6), "1m 00s");
  EXPECT_EQ(short_duration(7500), "2h 05m");
}

TEST(Doing, IsReadFromAPageThatMayHoldAnything) {
  StatusPage page;
  page.doing = 999;
  page.op_kind = -7;
  EXPECT_EQ(doing_of(page), Json({{"doing", "unknown"}}));
  page.doing = static_cast<int>(StatusPage::Doing::op);
  page.step = 4;
  page.op_kind = static_cast<int>(OpKind::forward);
  page.stage = 2;
  page.micro_batch = 1;
  EXPECT_EQ(describe_doing(doing_of(page)),
            "in step 4, computing, op 2F1 (forward of stage 2 on micro-batch 1)");
  EXPECT_EQ(describe_doing(nullptr), "");
}

TEST(ExitStatus, SaysSignalsByNumberAndNameAndWhoSentThem) {
  EXPECT_EQ(describe({.code = 3}), "exited with code 3");
  EXPECT_EQ(describe({.code = 0, .signal = SIGSEGV}), "killed by signal 11 (SIGSEGV)");
  EXPECT_EQ(describe({.code = 0, .signal = SIGKILL, .by_us = true}),
            "killed by signal 9 (SIGKILL)");
  EXPECT_THAT(describe({.code = 0, .signal = SIGKILL}), HasSubstr("out of memory"));
}

class Checkpoints : public ::testing::Test {
 protected:
  std::string save(int step, const std::string& content) {
    std::string directory = run_.path() + "/checkpoints/step-0000000" + std::to_string(step);
    std::filesystem::create_directories(directory);
    Json files = Json::array();
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "config.json"}) {
      std::ofstream(directory + "/" + name) << content;
      files.push_back({{"name", name},
                       {"bytes", content.size()},
                       {"sha256", sha256_of_file(directory + "/" + name)}});
    }
    write_manifest(directory, {{"step", step}, {"files", files}});
    return directory;
  }
  static void write_manifest(const std::string& directory, const Json& manifest) {
    std::ofstream(directory + "/manifest.json") << manifest;
  }
  static Json manifest(const std::string& directory) {
    return Json::parse(std::ifstream(directory + "/manifest.json"));
  }
  // Why the only checkpoint is passed over.
  std::string defect() {
    EXPECT_FALSE(find());
    return skipped_.empty() ? "" : skipped_.front();
  }
  std::optional<FoundCheckpoint> find() {
    skipped_.clear();
    return find_checkpoint(run_.path(), skipped_);
  }
  testing::ScratchRun run_;
  std::vector<std::string> skipped_;
};

// FIPS 180-2, appendix B.1.
TEST_F(Checkpoints, Sha256IsTheStandardOne) {
  std::ofstream(run_.path() + "/abc") << "abc";
  EXPECT_EQ(sha256_of_file(run_.path() + "/abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(Checkpoints, TheNewestSoundOneIsFound) {
  EXPECT_FALSE(find());
  save(1, "one");
  const std::string second = save(2, "two");
  EXPECT_EQ(find()->directory, second);
  EXPECT_EQ(find()->step, 2);
  EXPECT_THAT(skipped_, IsEmpty());
  EXPECT_EQ(find_checkpoint(run_.path() + "/checkpoints/step-00000001", skipped_)->step, 1);
}

TEST_F(Checkpoints, DamageIsNamedAndTheOneBeforeIsTaken) {
  save(1, "one");
  const std::string second = save(2, "two");
  std::ofstream(second + "/model.safetensors") << "tow";
  EXPECT_EQ(find()->step, 1);
  ASSERT_THAT(skipped_, SizeIs(1));
  EXPECT_THAT(skipped_[0], HasSubstr("model.safetensors does not have the content"));
  std::ofstream(second + "/model.safetensors") << "t";
  EXPECT_EQ(find()->step, 1);
  EXPECT_THAT(skipped_[0], HasSubstr("has 1 bytes, its manifest says 3"));
  std::filesystem::remove(second + "/model.safetensors");
  EXPECT_EQ(find()->step, 1);
  EXPECT_THAT(skipped_[0], HasSubstr("model.safetensors is missing"));
  std::ofstream(second + "/manifest.json") << "{";
  EXPECT_EQ(find()->step, 1);
  EXPECT_THAT(skipped_[0], HasSubstr("manifest.json is broken"));
  std::filesystem::remove(second + "/manifest.json");
  EXPECT_EQ(find()->step, 1);
  EXPECT_THAT(skipped_[0], HasSubstr("has no manifest.json"));
}

TEST_F(Checkpoints, AManifestCannotPointOutside) {
  const std::string directory = save(1, "one");
  write_manifest(
      directory,
      {{"step", 1}, {"files", {{{"name", "../../secret"}, {"bytes", 1}, {"sha256", ""}}}}});
  EXPECT_THAT(defect(), HasSubstr("lies elsewhere"));
}

TEST_F(Checkpoints, AManifestThatLeavesFilesOutIsNotTrusted) {
  const std::string directory = save(1, "one");
  const Json whole = manifest(directory);
  for (size_t left_out = 0; left_out < whole["files"].size(); ++left_out) {
    Json less = whole;
    less["files"].erase(left_out);
    write_manifest(directory, less);
    EXPECT_THAT(defect(), HasSubstr("does not name model, optimizer and config.json")) << left_out;
  }
}

TEST_F(Checkpoints, AManifestOfAnotherStepThanItsDirectoryIsNotTrusted) {
  const std::string directory = save(1, "one");
  Json other = manifest(directory);
  for (const Json& step : {Json(2), Json(-5), Json(99999999999), Json(1.5)}) {
    other["step"] = step;
    write_manifest(directory, other);
    EXPECT_THAT(defect(), HasSubstr("its manifest says step " + step.dump()));
  }
}

TEST_F(Checkpoints, WhatKilledRanksLeftHalfWrittenIsRemovedAndNothingElse) {
  const std::string sound = save(1, "one");
  const std::string partial = run_.path() + "/checkpoints/.partial-step-00000009";
  std::filesystem::create_directories(partial);
  std::ofstream(partial + "/model.safetensors") << "half";
  remove_partial_checkpoints(run_.path());
  EXPECT_FALSE(std::filesystem::exists(partial));
  EXPECT_TRUE(std::filesystem::exists(sound + "/model.safetensors"));
}

// A device that is full takes nothing; a file of limited size takes part of a line.
TEST(LineFile, LinesThatCannotBeWrittenAreTakenBackCountedAndToldOfOnce) {
  const testing::ScratchRun run;
  std::vector<std::string> complaints;
  const auto complain = [&](const std::string& text) { complaints.push_back(text); };
  LineFile full("/dev/full", complain);
  full.append("one");
  full.append("two");
  EXPECT_EQ(full.lost(), 2);
  EXPECT_THAT(complaints, ElementsAre(HasSubstr("No space left on device")));
  LineFile limited(run.path() + "/lines", complain);
  const rlimit little{8, RLIM_INFINITY};
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &little);
  limited.append("three");
  limited.append("four");
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  limited.append("five");
  EXPECT_EQ(limited.lost(), 1);
  EXPECT_EQ(run.read("lines"), "three\nfive\n");
}

TEST(MergeTraces, JoinsWholeTracesAndLeavesOutCutOnes) {
  const testing::ScratchRun run;
  std::filesystem::create_directories(run.path() + "/trace");
  EXPECT_EQ(merge_traces(run.path(), 4), "");
  std::ofstream(run.path() + "/trace/rank-00000.json") << "[{\"name\":\"a\"},\n{\"name\":\"b\"}]\n";
  std::ofstream(run.path() + "/trace/rank-00001.json") << "[{\"name\":\"cut";
  std::ofstream(run.path() + "/trace/rank-00002.json") << "[{\"name\":\"c\"}]";
  EXPECT_EQ(merge_traces(run.path(), 4), run.path() + "/trace/trace.json");
  const Json merged = Json::parse(run.read("trace/trace.json"));
  EXPECT_EQ(merged, Json({{{"name", "a"}}, {{"name", "b"}}, {{"name", "c"}}}));
}

Plan runnable_plan() {
  Plan plan;
  plan.device = "cpu";
  plan.job.model.layers = 1;
  plan.stages = {{0, 0, 0, 1, true, true}};
  plan.schedule = {"1f1b", 1, {{0, 0}}, {parse_csv_row("0F0,0B0", "row")}, false};
  plan.placement = {{"localhost", 0}};
  return plan;
}

std::string refusal(const Plan& plan) {
  try {
    check_runnable(plan);
  } catch (const Error& error) {
    EXPECT_EQ(exit_code(error.kind()), 2);
    return error.what();
  }
  return "";
}

TEST(Preflight, WhatThisVersionCannotRunIsRefusedBeforeItStarts) {
  EXPECT_EQ(refusal(runnable_plan()), "");
  const auto refused = [](auto change) {
    Plan plan = runnable_plan();
    change(plan);
    return refusal(plan);
  };
  EXPECT_THAT(refused([](Plan& p) { p.job.training.dtype = Dtype::bf16; }), HasSubstr("bf16"));
  EXPECT_THAT(refused([](Plan& p) { p.job.model.kv_heads = 1; }), HasSubstr("grouped queries"));
  EXPECT_THAT(refused([](Plan& p) { p.schedule.micro_batches = 7; }), HasSubstr("micro_batches"));
  EXPECT_THAT(refused([](Plan& p) { p.schedule.ranks = {parse_csv_row("0B0,0F0", "row")}; }),
              HasSubstr("schedule cannot run"));
  EXPECT_THAT(refused([](Plan& p) { p.layout.sequence_parallel = true; }), HasSubstr("sequence"));
  EXPECT_THAT(refused([](Plan& p) { p.layout.recompute = Recompute::full; }),
              HasSubstr("recompute = \"full\""));
  EXPECT_THAT(refused([](Plan& p) { p.layout.optimizer_sharding = 1; }),
              HasSubstr("optimizer_sharding = 1"));
  EXPECT_THAT(refused([](Plan& p) { p.device = "H100-SXM-80GB"; }), HasSubstr("H100-SXM-80GB"));
  EXPECT_THAT(refused([](Plan& p) { p.layout.data = 65; }), HasSubstr("65 ranks"));
  EXPECT_THROW(check_target({.on = "slurm", .device = "cpu"}), Error);
  EXPECT_THROW(check_target({.on = "local", .device = "cuda"}), Error);
  EXPECT_NO_THROW(check_target({}));
  EXPECT_NO_THROW(check_target({.on = "local", .device = "emulated"}));
}

}  // namespace
}  // namespace trireme
