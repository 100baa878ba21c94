// The whole path with real processes: two TOML files go in, trained models come out.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

class Run : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path().string() + "/trireme-run-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    std::ofstream(directory_ + "/cluster.toml") << R"(name = "here"
[[nodes]]
hosts = "localhost"
device = "cpu"
devices = 8
link = "memory"
)";
    std::ofstream(directory_ + "/job.toml")
        << "name = \"tiny\"\n[model]\nweights = \"" << TRIREME_SOURCE_DIR
        << "/tests/data/llama-tiny\"\nsequence = 32\n"
        << "[training]\nglobal_batch = 12\nsteps = 6\nwarmup_steps = 6\n"
        << "[data]\npath = \"" << TRIREME_SOURCE_DIR
        << "/tests/data/tokens.u16\"\nformat = \"u16\"\norder = "
           "\"sequential\"\n[checkpoint]\nevery = 3\nkeep = 0\n";
  }
  void TearDown() override { fs::remove_all(directory_); }

  int trireme(const std::string& arguments) const {
    const std::string command = "TMPDIR=" + directory_ + " " + TRIREME_BINARY_DIR + "/trireme " +
                                arguments + " > " + directory_ + "/out.txt 2>&1";
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  int run(const std::string& name, const std::string& more) const {
    return trireme("run " + directory_ + "/job.toml --cluster " + directory_ +
                   "/cluster.toml --run-dir " + directory_ + "/" + name + " " + more);
  }
  void replace(const std::string& file, const std::string& old_text,
               const std::string& new_text) const {
    const std::string path = directory_ + "/" + file;
    std::string text = read_text_file(path);
    ASSERT_NE(text.find(old_text), std::string::npos);
    text.replace(text.find(old_text), old_text.size(), new_text);
    std::ofstream(path) << text;
  }
  std::string output() const { return read_text_file(directory_ + "/out.txt"); }

  // Step and loss, as written: 9 significant digits.
  std::vector<std::pair<int, double>> losses(const std::string& name) const {
    std::ifstream lines(directory_ + "/" + name + "/metrics.jsonl");
    std::vector<std::pair<int, double>> found;
    for (std::string line; std::getline(lines, line);) {
      const auto step = nlohmann::json::parse(line);
      found.emplace_back(step.at("step").get<int>(), step.at("loss").get<double>());
    }
    return found;
  }

  std::string directory_;
};

const char* const kEightRanks =
    "--pin tensor=2 --pin pipeline=2 --pin data=2 --pin chunks=2 --pin schedule=interleaved --pin "
    "micro_batch=1";
const char* const kTwoRanks =
    "--pin tensor=2 --pin pipeline=1 --pin data=1 --pin chunks=1 --pin schedule=gpipe --pin "
    "micro_batch=1";

TEST_F(Run, EightProcessesTrainToTheLossesOfTwo) {
  ASSERT_EQ(run("eight", kEightRanks), 0) << output();
  ASSERT_EQ(run("two", kTwoRanks), 0) << output();
  EXPECT_EQ(losses("eight").size(), 6U);
  EXPECT_EQ(losses("eight"), losses("two"));
}

// Split backwards, both ends of the pipeline on one rank, pairs.
TEST_F(Run, OtherSchedulesTrainToTheSameLosses) {
  ASSERT_EQ(run("two", kTwoRanks), 0) << output();
  const std::string four = "--pin tensor=2 --pin pipeline=2 --pin data=1 --pin micro_batch=1 ";
  for (const std::string schedule : {"zb-h1", "zb-v", "dualpipe-v"}) {
    const std::string chunks = schedule == "zb-h1" ? "1" : "2";
    std::string pins = four;
    pins.append("--pin chunks=").append(chunks).append(" --pin schedule=").append(schedule);
    ASSERT_EQ(run(schedule, pins), 0) << output();
    EXPECT_EQ(losses(schedule), losses("two")) << schedule;
  }
}

// In an order that no generator makes.
TEST_F(Run, AScheduleOfOnesOwnTrainsToTheSameLosses) {
  std::ofstream(directory_ + "/mine.csv")
      << "0F0,0F1,0F2,0F3,0I0,0F4,0B1,0F5,0B2,0W0,0B3,0B4,0B5\n"
         "1F0,1F1,1B0,1I1,1F2,1B2,1F3,1W1,1B3,1F4,1B4,1F5,1B5\n";
  const std::string four = "--pin tensor=2 --pin data=1 --pin micro_batch=2 --schedule-file ";
  ASSERT_EQ(run("gpipe",
                "--pin tensor=2 --pin pipeline=2 --pin data=1 --pin chunks=1 "
                "--pin micro_batch=2 --pin schedule=gpipe"),
            0)
      << output();
  ASSERT_EQ(run("mine", four + directory_ + "/mine.csv"), 0) << output();
  EXPECT_EQ(losses("mine"), losses("gpipe"));
}

TEST_F(Run, MetricsSayWhatKindOfStepItWas) {
  const std::string two = "--pin tensor=1 --pin pipeline=2 --pin data=1 --pin chunks=1 ";
  const auto first_step = [&](const std::string& schedule) {
    EXPECT_EQ(run(schedule, two + "--pin micro_batch=1 --pin schedule=" + schedule), 0) << output();
    std::ifstream lines(directory_ + "/" + schedule + "/metrics.jsonl");
    std::string line;
    std::getline(lines, line);
    return nlohmann::json::parse(line);
  };
  const auto stream = first_step("pipedream");
  EXPECT_EQ(stream.value("asynchronous", false), true);
  EXPECT_FALSE(stream.contains("grad_norm"));
  EXPECT_TRUE(stream.contains("learning_rate"));
  const auto evaluation = first_step("forward-only");
  EXPECT_FALSE(evaluation.contains("grad_norm"));
  EXPECT_FALSE(evaluation.contains("learning_rate"));
  EXPECT_TRUE(fs::is_empty(directory_ + "/forward-only/checkpoints"));
}

TEST_F(Run, LeavesEverythingThatTheRunDirectoryPromises) {
  ASSERT_EQ(run("one", kEightRanks), 0) << output();
  for (const char* name :
       {"plan.toml", "job.toml", "events.jsonl", "metrics.jsonl", "logs/rank-00007.log",
        "trace/trace.json", "checkpoints/step-00000003/manifest.json",
        "checkpoints/step-00000006/config.json"}) {
    EXPECT_TRUE(fs::exists(directory_ + "/one/" + name)) << name;
  }
  const auto trace = nlohmann::json::parse(read_text_file(directory_ + "/one/trace/trace.json"));
  int ops = 0;
  for (const auto& event : trace.is_array() ? trace : trace.at("traceEvents")) {
    if (event.value("cat", "") == "op") ++ops;
  }
  // 6 steps, 8 ranks, 2 chunks, 6 micro-batches, forward and backward.
  EXPECT_EQ(ops, 6 * 8 * 2 * 6 * 2);
}

TEST_F(Run, ResumesOnAnotherLayoutWithTheSameLosses) {
  ASSERT_EQ(run("whole", kEightRanks), 0) << output();
  fs::remove_all(directory_ + "/whole/checkpoints/step-00000006");
  EXPECT_EQ(run("nowhere", std::string(kTwoRanks) + " --resume " + directory_ + "/none"), 2);
  EXPECT_NE(output().find("/none: found nothing there"), std::string::npos) << output();
  ASSERT_EQ(run("resumed", std::string(kTwoRanks) + " --resume " + directory_ + "/whole"), 0)
      << output();
  const auto whole = losses("whole");
  EXPECT_EQ(losses("resumed"),
            (std::vector<std::pair<int, double>>(whole.begin() + 3, whole.end())));
}

TEST_F(Run, OnlyResumesWhereItIsAskedTo) {
  ASSERT_EQ(run("whole", kTwoRanks), 0) << output();
  const std::string checkpoint = directory_ + "/whole/checkpoints/step-00000003";
  setenv("TRIREME_RESUME", checkpoint.c_str(), 1);
  EXPECT_EQ(run("again", kTwoRanks), 0) << output();
  unsetenv("TRIREME_RESUME");
  EXPECT_EQ(losses("again"), losses("whole"));
}

TEST_F(Run, DataThatHasChangedSinceTheCheckpointIsNoted) {
  const std::string data = directory_ + "/tokens.u16";
  fs::copy_file(std::string(TRIREME_SOURCE_DIR) + "/tests/data/tokens.u16", data);
  replace("job.toml", std::string(TRIREME_SOURCE_DIR) + "/tests/data/tokens.u16", data);
  ASSERT_EQ(run("whole", kTwoRanks), 0) << output();
  fs::remove_all(directory_ + "/whole/checkpoints/step-00000006");
  std::ofstream(data, std::ios::app | std::ios::binary) << "more";
  ASSERT_EQ(run("resumed", std::string(kTwoRanks) + " --resume " + directory_ + "/whole"), 0);
  EXPECT_NE(output().find("note from r0: " + data + " has changed"), std::string::npos) << output();
}

// Weights grow ninefold a step, and the gradients overflow in the fourth.
TEST_F(Run, ThatDivergesFailsAndKeepsTheCheckpointBefore) {
  replace("job.toml", "steps = 6\nwarmup_steps = 6",
          "steps = 60\nlearning_rate = 10\nmin_learning_rate = 10\nweight_decay = 1.0");
  EXPECT_EQ(run("diverged", kTwoRanks), 1) << output();
  EXPECT_NE(output().find("diverged: the "), std::string::npos) << output();
  EXPECT_TRUE(fs::exists(directory_ + "/diverged/checkpoints/step-00000003/manifest.json"));
  for (const auto& [step, loss] : losses("diverged")) EXPECT_TRUE(std::isfinite(loss)) << step;
}

TEST_F(Run, NodesOfAnyNameAreOnThisMachine) {
  replace("cluster.toml", "hosts = \"localhost\"",
          "hosts = \"no-such-host-[1-2]\"\nnics = 1\nnic_gbps = 10");
  replace("cluster.toml", "devices = 8", "devices = 4");
  std::ofstream(directory_ + "/cluster.toml", std::ios::app)
      << "[fabric]\nkind = \"flat\"\nlatency_us = 10\n";
  ASSERT_EQ(run("two", kEightRanks), 0) << output();
  EXPECT_EQ(losses("two").size(), 6U);
}

TEST_F(Run, EachOfSeveralAtOnceHasADirectoryOfItsOwn) {
  replace("job.toml", "name = \"tiny\"", "name = \"../tiny job\"");
  const std::string command = "cd " + directory_ + " && for i in 1 2 3; do " + TRIREME_BINARY_DIR +
                              "/trireme run job.toml --cluster cluster.toml " + kTwoRanks +
                              " > out.$i 2>&1 & done; wait";
  ASSERT_EQ(std::system(command.c_str()), 0);
  int runs = 0;
  for (const auto& entry : fs::directory_iterator(directory_ + "/runs")) {
    EXPECT_TRUE(entry.path().filename().string().starts_with("-..-tiny-job-")) << entry.path();
    EXPECT_EQ(losses("runs/" + entry.path().filename().string()).size(), 6U);
    ++runs;
  }
  EXPECT_EQ(runs, 3);
  EXPECT_EQ(run("runs", kTwoRanks), 2);
  EXPECT_NE(output().find("found files in it"), std::string::npos) << output();
}

TEST_F(Run, RefusesWhatTheRuntimeDoesNotHaveBeforeAnythingStarts) {
  for (const char* pin : {"recompute=full", "sequence_parallel=true", "optimizer_sharding=1"}) {
    EXPECT_EQ(run("refused", std::string("--pin ") + pin), 2) << pin << "\n" << output();
    EXPECT_FALSE(fs::exists(directory_ + "/refused/logs")) << pin;
  }
}

// A cluster of two slots and a batch of two keep the series short.
TEST_F(Run, AProfileIsMeasuredAndPlansRestOnIt) {
  replace("job.toml", "global_batch = 12", "global_batch = 2");
  replace("cluster.toml", "devices = 8", "devices = 2\ncores = 2");
  const std::string files = directory_ + "/job.toml --cluster " + directory_ + "/cluster.toml";
  const std::string profile = directory_ + "/profile.toml";
  ASSERT_EQ(trireme("profile " + files + " -o " + profile), 0) << output();
  for (const auto& left : fs::directory_iterator(directory_)) {
    EXPECT_EQ(left.path().filename().string().find("trireme-profile"), std::string::npos);
  }
  EXPECT_NE(read_text_file(profile).find("[[measured]]"), std::string::npos);
  ASSERT_EQ(trireme("plan " + files + " --profile " + profile + " --json"), 0) << output();
  EXPECT_NE(output().find("step-end times are those of"), std::string::npos) << output();
  ASSERT_EQ(run("profiled", "--profile " + profile), 0) << output();
  replace("job.toml", "sequence = 32", "sequence = 16");
  EXPECT_EQ(trireme("estimate " + files + " --profile " + profile), 2);
  EXPECT_NE(output().find("was measured with sequence = 32"), std::string::npos) << output();
}

TEST_F(Run, AProfileThatIsInterruptedLeavesNothing) {
  const std::string profile = directory_ + "/profile.toml";
  const std::string command = "TMPDIR=" + directory_ + " timeout --preserve-status -s INT 1 " +
                              std::string(TRIREME_BINARY_DIR) + "/trireme profile " + directory_ +
                              "/job.toml --cluster " + directory_ + "/cluster.toml -o " + profile +
                              " > " + directory_ + "/out.txt 2>&1";
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 130) << output();
  EXPECT_FALSE(fs::exists(profile));
  for (const auto& left : fs::directory_iterator(directory_)) {
    EXPECT_EQ(left.path().filename().string().find("trireme-profile"), std::string::npos);
  }
}

TEST_F(Run, DataThatIsNotThereIsNamed) {
  std::ofstream(directory_ + "/job.toml", std::ios::app) << "\n";
  std::string job = read_text_file(directory_ + "/job.toml");
  job.replace(job.find("tokens.u16"), 10, "absent.u16");
  std::ofstream(directory_ + "/job.toml") << job;
  EXPECT_EQ(run("absent", kTwoRanks), 2);
  EXPECT_NE(output().find("absent.u16"), std::string::npos) << output();
}

// head leaves after the first line; the other terminal is full from the beginning.
TEST_F(Run, TrainsOnWhereNobodyListens) {
  run("piped", "2>&1 | head -1");
  EXPECT_EQ(losses("piped").size(), 6U) << output();
  run("unheard", "2> /dev/full > /dev/null; echo status $?");
  EXPECT_EQ(losses("unheard").size(), 6U);
  EXPECT_EQ(output(), "status 0\n");
}

// A plan for GPUs that are not here, on a model whose data is not here either.
class RehearsedRun : public Run {
 protected:
  void SetUp() override {
    Run::SetUp();
    std::ofstream(directory_ + "/big.toml") << R"(name = "big"
[model]
family = "gpt2"
layers = 16
hidden = 512
heads = 8
vocab = 50257
sequence = 256
[training]
global_batch = 8
steps = 100000
warmup_steps = 2000
dtype = "bf16"
[data]
path = "nowhere/*.txt"
)";
  }
  int rehearse(const std::string& more) const {
    return trireme("run " + directory_ + "/big.toml --cluster " + TRIREME_SOURCE_DIR +
                   "/configs/clusters/dgx-a100-2.toml --device emulated --run-dir " + directory_ +
                   "/rehearsed --pin tensor=2 --pin pipeline=2 --pin data=1 --pin micro_batch=1 " +
                   "--pin schedule=1f1b --pin recompute=full --pin sequence_parallel=true " + more);
  }
};

TEST_F(RehearsedRun, APlanForAnotherClusterRunsHereWithoutDataWeightsOrLoss) {
  ASSERT_EQ(rehearse("--json --steps 2 --time-scale 10"), 0) << output();
  const std::string text = output();
  const auto report = nlohmann::json::parse(text.substr(text.rfind("{\"bubble_fraction\"")));
  EXPECT_EQ(report["rehearsal"], true);
  EXPECT_EQ(report["steps"], 2);
  EXPECT_TRUE(report["last_loss"].is_null());
  EXPECT_GE(report["step_seconds"], report["predicted_step_seconds"]);
  const auto counted = report["summary"]["peak_bytes_per_pipeline_rank"];
  ASSERT_EQ(counted.size(), 2U);
  for (size_t p = 0; p < 2; ++p) {
    const double predicted = report["predicted_memory_bytes_per_pipeline_rank"][p];
    EXPECT_GT(counted[p], 0.0);
    EXPECT_LT(counted[p], predicted) << "the prediction has a reserve for what is not counted";
  }
  std::ifstream lines(directory_ + "/rehearsed/metrics.jsonl");
  int steps = 0;
  for (std::string line; std::getline(lines, line); ++steps)
    EXPECT_FALSE(nlohmann::json::parse(line).contains("loss")) << line;
  EXPECT_EQ(steps, 2);
  EXPECT_TRUE(fs::is_empty(directory_ + "/rehearsed/checkpoints"));
  EXPECT_TRUE(fs::exists(directory_ + "/rehearsed/trace/trace.json"));
}

TEST_F(RehearsedRun, GivenOpTimesReplaceThePrediction) {
  ASSERT_EQ(rehearse("--steps 1 --op-times f=0.001,i=0.001,w=0.001"), 0) << output();
  // (m + p - 1)(tF + tB) with m = 8 and p = 2.
  EXPECT_NE(output().find("0.027 s predicted"), std::string::npos) << output();
}

TEST_F(RehearsedRun, WhatBelongsToOneKindOfDeviceIsRefusedOnTheOther) {
  EXPECT_EQ(rehearse("--resume " + directory_), 2) << output();
  EXPECT_EQ(rehearse("--wire-scale 2"), 2) << output();
  EXPECT_EQ(rehearse("--op-times f=soon"), 2) << output();
  for (const char* option : {"--wire-scale 1", "--time-scale 2", "--steps 1", "--op-times f=1"}) {
    EXPECT_EQ(run("trained", option), 2) << output();
    EXPECT_NE(output().find("--device emulated"), std::string::npos) << output();
  }
  EXPECT_FALSE(fs::exists(directory_ + "/rehearsed/logs"));
}

}  // namespace
}  // namespace trireme
