#include "planner/profile/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <tuple>

#include "planner/cost/step.h"
#include "planner/profile/fit.h"
#include "planner/profile/repeated.h"
#include "planner/profile/series.h"
#include "planner/schedules/schedules.h"
#include "planner/search.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using testing::HasSubstr;

const char* const kFile = R"(format = "trireme profile 1"
cores = 2

[model]
family = "gpt2"
hidden = 128
heads = 4
kv_heads = 4
head_dim = 32
ffn_hidden = 512
vocab = 256
sequence = 128
tied_embeddings = false
dtype = "fp32"
reduction = "ordered"

[[measured]]
tensor = 1
micro_batch = 1
threads = 1
cores = 1
layer = {forward = 0.001, input = 0.002, weight = 0.0015}
embedding = {forward = 0.0001, input = 0, weight = 0.0002}
head = {forward = 0.0003, input = 0.0004, weight = 0.0005}

[[measured]]
tensor = 1
micro_batch = 3
threads = 1
cores = 0.5
layer = {forward = 0.002, input = 0.004, weight = 0.0035}
embedding = {forward = 0.0001, input = 0, weight = 0.0002}
head = {forward = 0.0003, input = 0.0004, weight = 0.0005}

[message]
hop_seconds = 1e-05
hop_seconds_per_byte = 1e-09
rank_seconds = 2e-05
rank_seconds_per_byte = 2e-09

[step_end]
seconds = 0.001
seconds_per_peer = 0.0001
seconds_per_parameter = 1e-09
seconds_per_exchanged_byte = 2e-09
)";

Profile profile() {
  return parse_profile(kFile, "p.toml");
}

std::string complaint(std::string text, const std::string& old_text, const std::string& new_text) {
  const size_t at = text.find(old_text);
  EXPECT_NE(at, std::string::npos) << old_text;
  text.replace(at, old_text.size(), new_text);
  try {
    parse_profile(text, "p.toml");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no complaint";
}

TEST(ProfileFile, ReadsBackAsItWasWritten) {
  const std::string text = to_toml(profile());
  EXPECT_EQ(to_toml(parse_profile(text, "p.toml")), text);
  EXPECT_EQ(parse_profile(text, "p.toml").measured.size(), 2U);
  EXPECT_DOUBLE_EQ(parse_profile(text, "p.toml").message.hop(1000), 1.1e-5);
}

TEST(ProfileFile, EveryMistakeIsNamedWithItsPlace) {
  EXPECT_THAT(complaint(kFile, "profile 1", "profile 9"), HasSubstr("p.toml:1:10: format"));
  EXPECT_THAT(complaint(kFile, "cores = 2", "cores = 0"), HasSubstr("p.toml:2:9: cores: found 0"));
  EXPECT_THAT(complaint(kFile, "forward = 0.001", "forward = -1"),
              HasSubstr("p.toml:22:20: measured[0].layer.forward: found -1"));
  EXPECT_THAT(complaint(kFile, "weight = 0.0015", "wieght = 0.0015"), HasSubstr("weight"));
  EXPECT_THAT(complaint(kFile, "micro_batch = 3", "micro_batch = 1"),
              HasSubstr("found tensor = 1, micro_batch = 1, threads = 1 again"));
  EXPECT_THAT(complaint(kFile, "hop_seconds = 1e-05", "hop_seconds = nan"),
              HasSubstr("message.hop_seconds"));
  EXPECT_THAT(complaint(kFile, "[step_end]", "[step_and]"), HasSubstr("step_end"));
  const std::string text = kFile;
  const size_t begin = text.find("[[measured]]"), end = text.find("[message]");
  EXPECT_THAT(complaint(text, text.substr(begin, end - begin), ""), HasSubstr("measured: missing"));
}

TEST(Profile, LiesOnALineBetweenMicroBatchesAndInProportionBelow) {
  const Profile p = profile();
  const auto two = p.parts(1, 2, 1);
  ASSERT_TRUE(two);
  EXPECT_NEAR(two->layer.forward, 0.0015, 1e-12);
  EXPECT_NEAR(two->cores, 0.75, 1e-12);
  // (4 - 1) / (3 - 1) = 1.5 times the way from 1.5 to 3.5 ms.
  EXPECT_NEAR(p.parts(1, 4, 1)->layer.weight, 0.0045, 1e-12);
  EXPECT_NEAR(p.parts(1, 4, 1)->cores, 0.5, 1e-12);
  Profile one = p;
  one.measured.erase(one.measured.begin());
  EXPECT_NEAR(one.parts(1, 1, 1)->layer.input, 0.004 / 3, 1e-12);
  EXPECT_FALSE(p.parts(2, 1, 1));
  EXPECT_FALSE(p.parts(1, 1, 2));
}

TEST(Profile, RanksShareOutTheCoresAsThreads) {
  Profile p = profile();
  p.cores = 16;
  EXPECT_EQ(p.threads(1), 16);
  EXPECT_EQ(p.threads(5), 3);
  EXPECT_EQ(p.threads(16), 1);
  EXPECT_EQ(p.threads(64), 1);
}

TEST(Profile, OfAnotherModelIsRefusedByNameAndAnyDepthIsTaken) {
  Job job;
  job.model = profile().model;
  job.model.layers = 96;
  check_profile(profile(), job);
  job.model.hidden = 256;
  try {
    check_profile(profile(), job);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("p.toml: was measured with hidden = 128, the job has 256"));
  }
}

TEST(ProfileRepeated, OfTwoThatAgreeTheQuickerIsTypical) {
  Repeated<int> run;
  EXPECT_FALSE(run.settled());
  run.add(1, 1.02);
  EXPECT_FALSE(run.settled());
  EXPECT_EQ(run.typical(), 1);
  run.add(2, 1.0);
  EXPECT_TRUE(run.settled());
  EXPECT_EQ(run.typical(), 2);
}

TEST(ProfileRepeated, OfThreeTheMiddleOneIsTypical) {
  Repeated<int> run;
  run.add(1, 2.0);
  run.add(2, 1.0);  // half of the first: which of the two was disturbed?
  EXPECT_FALSE(run.settled());
  run.add(3, 1.5);
  EXPECT_TRUE(run.settled());
  EXPECT_EQ(run.typical(), 3);
}

// Three runs on a line: a layer takes 2 ms forward, embedding and head together 1 ms, of which the
// head has three quarters.
TEST(ProfileFit, ALayerIsTheSlopeAndTheRestIsSplitByTheHeadsShare) {
  std::vector<RunSample> runs;
  for (const int layers : {2, 4, 8}) {
    RunSample run;
    run.layers = layers;
    run.op = {0.001 + 0.002 * layers, 0.003 * layers, 0.004 + 0.001 * layers};
    run.threads = 2;
    run.cores = layers == 4 ? 1.6 : 1;
    runs.push_back(run);
  }
  const auto measured = fit_parts(runs, [](int, int) { return StageCost{0.75, 0.5, 0.25}; });
  ASSERT_EQ(measured.size(), 1U);
  const Profile::Parts& parts = measured.front().parts;
  EXPECT_NEAR(parts.layer.forward, 0.002, 1e-12);
  EXPECT_NEAR(parts.layer.input, 0.003, 1e-12);
  EXPECT_NEAR(parts.layer.weight, 0.001, 1e-12);
  EXPECT_NEAR(parts.head.forward, 0.00075, 1e-12);
  EXPECT_NEAR(parts.embedding.forward, 0.00025, 1e-12);
  EXPECT_NEAR(parts.head.input, 0, 1e-12);
  EXPECT_NEAR(parts.embedding.weight, 0.003, 1e-12);
  EXPECT_NEAR(parts.cores, 1.2, 1e-12);
}

// Noise may put a line below zero; no part takes less than nothing. Seconds 1 and 5 at 1 and 2
// layers: through 0 the best slope is (1*1 + 2*5) / (1 + 4) = 2.2.
TEST(ProfileFit, NothingTakesLessThanNothing) {
  std::vector<RunSample> runs(2);
  runs[0].op = {1, 2, 1};
  runs[1].op = {5, 1, 1};
  runs[1].layers = 2;
  const auto parts = fit_parts(runs, [](int, int) { return StageCost{1, 1, 1}; }).front().parts;
  EXPECT_NEAR(parts.layer.forward, 2.2, 1e-12);
  EXPECT_EQ(parts.head.forward, 0);
  EXPECT_EQ(parts.layer.input, 0);
  EXPECT_NEAR(parts.head.input, 1.5, 1e-12);
}

// Runs made by the four figures themselves give them back.
TEST(ProfileFit, TheEndOfAStepIsFoundFromRunsThatFollowIt) {
  const Profile::StepEnd truth{2e-3, 3e-4, 4e-9, 5e-9};
  std::vector<RunSample> runs;
  for (const int tensor : {1, 2, 4}) {
    for (const int data : {1, 2}) {
      for (const double parameters : {1e5, 1e6}) {
        RunSample run;
        run.tensor = tensor;
        run.data = data;
        run.parameters = parameters / tensor;
        const int ranks = tensor * data;
        run.other_seconds =
            truth.seconds + truth.seconds_per_peer * (ranks - 1) +
            truth.seconds_per_parameter * run.parameters +
            truth.seconds_per_exchanged_byte * exchanged_bytes(run.parameters, data);
        run.step_seconds = 10 * run.other_seconds;
        runs.push_back(run);
      }
    }
  }
  const Profile::StepEnd found = fit_step_end(runs);
  EXPECT_NEAR(found.seconds, truth.seconds, 1e-9);
  EXPECT_NEAR(found.seconds_per_peer, truth.seconds_per_peer, 1e-10);
  EXPECT_NEAR(found.seconds_per_parameter, truth.seconds_per_parameter, 1e-15);
  EXPECT_NEAR(found.seconds_per_exchanged_byte, truth.seconds_per_exchanged_byte, 1e-15);
  // Runs that get shorter with more parameters: that figure is none, not less than none.
  for (RunSample& run : runs) run.other_seconds = run.parameters > 2e5 ? 1e-3 : 2e-3;
  EXPECT_EQ(fit_step_end(runs).seconds_per_parameter, 0);
}

// A rank spends 1 + 2 + 3 ms at the end of a step, and the rest on its ten messages: 0.1 ms each of
// the short ones and 0.5 ms each of the long.
TEST(ProfileFit, AMessageIsLatencyAndBytes) {
  const Profile::StepEnd end{1e-3, 2e-3, 3e-9, 1};
  const Profile::Message message =
      fit_message({{1000, 3e-5, 10, 7e-3, 1e6}, {5000, 7e-5, 10, 11e-3, 1e6}}, end);
  EXPECT_NEAR(message.hop_seconds, 2e-5, 1e-12);
  EXPECT_NEAR(message.hop_seconds_per_byte, 1e-8, 1e-15);
  EXPECT_NEAR(message.busy(3000), 3e-4, 1e-12);
  EXPECT_EQ(fit_message({}, end).hop(1e6), 0);
  // All-reduce of 1000 numbers by four: 2 * 3/4 * 4000 bytes.
  EXPECT_DOUBLE_EQ(exchanged_bytes(1000, 4), 6000);
}

NodeGroup cpu_node(int devices, int cores) {
  NodeGroup nodes;
  nodes.device = *find_device("cpu");
  nodes.devices = devices;
  nodes.cores = cores;
  nodes.hosts = {"localhost"};
  return nodes;
}

Job tiny_job() {
  Job job;
  job.name = "tiny";
  job.model = profile().model;
  job.model.layers = 4;
  job.model.positions = 128;
  job.training.global_batch = 8;
  return job;
}

// Two cores, eight slots, four heads: tensor 1 alone has two threads, all else one.
TEST(ProfileSeries, CoversEveryTensorDegreeAndNumberOfThreads) {
  const ProfileSeries series = profile_series(tiny_job(), cpu_node(8, 2));
  std::set<std::tuple<int, int, int, int>> shapes;
  for (const ProfileRun& run : series.ops) {
    EXPECT_EQ(*run.job.pins.pipeline, 1);
    EXPECT_EQ(*run.job.pins.tensor * *run.job.pins.data * run.threads <= 2 || run.threads == 1,
              true);
    shapes.emplace(*run.job.pins.tensor, run.threads, *run.job.pins.micro_batch,
                   run.job.model.layers);
  }
  std::set<std::tuple<int, int, int, int>> expected;
  for (const auto& [tensor, threads] :
       {std::pair(1, 1), std::pair(1, 2), std::pair(2, 1), std::pair(4, 1)}) {
    for (const int micro_batch : {1, 4}) {
      for (const int layers : {1, 4}) expected.emplace(tensor, threads, micro_batch, layers);
    }
  }
  EXPECT_EQ(shapes, expected);
  EXPECT_EQ(series.messages.size(), 2U);
  EXPECT_TRUE(profile_series(tiny_job(), cpu_node(1, 2)).messages.empty());
}

// Eight ranks on sixteen cores have two threads each, as four groups of two ranks do.
TEST(ProfileSeries, ForAPinnedLayoutCoversThatAndOneRankPerGroup) {
  Job job = tiny_job();
  for (const char* pin : {"tensor=2", "pipeline=2", "data=2", "micro_batch=2"}) {
    set_pin(job.pins, pin);
  }
  const ProfileSeries series = profile_series(job, cpu_node(8, 16), ProfileExtent::pinned);
  std::set<std::tuple<int, int, int, int, int>> shapes;
  for (const ProfileRun& run : series.ops) {
    shapes.emplace(*run.job.pins.tensor, *run.job.pins.data, run.threads, *run.job.pins.micro_batch,
                   run.job.model.layers);
  }
  const std::set<std::tuple<int, int, int, int, int>> expected = {
      {1, 8, 2, 2, 1}, {1, 8, 2, 2, 4}, {2, 4, 2, 2, 1}, {2, 4, 2, 2, 4}};
  EXPECT_EQ(shapes, expected);
  ASSERT_EQ(series.messages.size(), 1U);
  EXPECT_EQ(series.messages.front().job.pins.micro_batch, 2);
}

TEST(ProfileSeries, WhatIsNotPinnedIsMeasuredAsForTheWhole) {
  const Job job = tiny_job();
  const NodeGroup nodes = cpu_node(8, 2);
  const ProfileSeries whole = profile_series(job, nodes);
  const ProfileSeries pinned = profile_series(job, nodes, ProfileExtent::pinned);
  EXPECT_EQ(pinned.ops.size(), whole.ops.size());
  EXPECT_EQ(pinned.messages.size(), whole.messages.size());
}

Cluster cpu_cluster(int devices) {
  Cluster cluster;
  cluster.name = "here";
  cluster.groups = {cpu_node(devices, 2)};
  cluster.groups.front().link_bytes_per_s = 1e9;
  return cluster;
}

Profile::MeasuredParts figures(int tensor, double seconds, int threads) {
  Profile::MeasuredParts row{.tensor = tensor, .micro_batch = 1, .threads = threads, .parts = {}};
  row.parts.layer = {seconds, seconds, seconds};
  row.parts.cores = std::min(tensor, 2);
  return row;
}

Prediction predict(const Job& job, const Cluster& cluster, const Profile& with) {
  PlanOptions options;
  options.profile = std::make_shared<Profile>(with);
  return find_plan(job, cluster, options).plan.prediction;
}

Pins pins_of_one_rank() {
  Pins pins;
  for (const char* pin :
       {"tensor=1", "pipeline=1", "data=1", "chunks=1", "micro_batch=1", "schedule=1f1b"}) {
    set_pin(pins, pin);
  }
  return pins;
}

// Layers of 1 ms and nothing else. Eight micro-batches of four layers, three ops each.
TEST(ProfiledStep, FollowsFromTheFiguresByHand) {
  Profile p = profile();
  p.message = {};
  p.end = {};
  p.measured = {figures(1, 1e-3, 1), figures(1, 1e-3, 2), figures(2, 1e-3, 1)};
  Job job = tiny_job();
  job.pins = pins_of_one_rank();
  const Cluster cluster = cpu_cluster(8);
  // One rank: 8 * 4 * 3 ms.
  EXPECT_NEAR(predict(job, cluster, p).step_seconds, 0.096, 1e-9);
  // Four replicas of two micro-batches: 24 ms each, on two cores twice that.
  job.pins.data = 4;
  EXPECT_NEAR(predict(job, cluster, p).step_seconds, 0.048, 1e-9);
  // Two stages of two layers on two cores: 1f1b's (m + p - 1) * 6 ms.
  job.pins.data = 1;
  job.pins.pipeline = 2;
  EXPECT_NEAR(predict(job, cluster, p).step_seconds, 9 * 0.006, 1e-9);
  // Two stages of two tensor ranks: 96 ms of two cores' work, of which none is ever idle once both
  // are asked for; while one stage runs alone it has both cores to itself.
  job.pins.tensor = 2;
  EXPECT_NEAR(predict(job, cluster, p).step_seconds, 0.096, 1e-9);
  // 10 us per parameter: the whole model on each of 1 x 1 ranks.
  job.pins = pins_of_one_rank();
  p.end.seconds_per_parameter = 1e-5;
  EXPECT_NEAR(predict(job, cluster, p).step_seconds,
              0.096 + 1e-5 * static_cast<double>(total_parameters(job.model)), 1e-6);
}

// The search prunes by bounds; a profile must not make them wrong. Every layout is looked at by
// itself and none may be faster than the plan.
TEST(ProfiledStep, ThePlanIsTheFastestOfAllLayouts) {
  Profile p = profile();
  p.measured = {figures(1, 1.1e-3, 1), figures(1, 0.8e-3, 2), figures(2, 0.9e-3, 1),
                figures(4, 0.7e-3, 1)};
  const Job job = tiny_job();
  const Cluster cluster = cpu_cluster(8);
  PlanOptions options;
  options.profile = std::make_shared<Profile>(p);
  const PlanResult plan = find_plan(job, cluster, options);
  options.top = 1000;
  const PlanResult all = find_plan(job, cluster, options);
  double least = all.plan.prediction.step_seconds;
  for (const Alternative& other : all.alternatives) {
    least = std::min(least, other.prediction.step_seconds);
  }
  EXPECT_GT(all.alternatives.size(), 20U);
  EXPECT_DOUBLE_EQ(plan.plan.prediction.step_seconds, least);
  EXPECT_THAT(plan.notes.front(), HasSubstr("p.toml"));
}

// The bounds that the search prunes by lie below what is predicted, with figures of every kind.
TEST(ProfiledStep, BoundsLieBelowThePrediction) {
  const Profile p = [] {
    Profile made = profile();
    made.measured = {figures(1, 1.1e-3, 1), figures(1, 0.8e-3, 2), figures(2, 0.9e-3, 1)};
    return made;
  }();
  const Job job = tiny_job();
  for (const int devices : {2, 8}) {
    Cluster cluster = cpu_cluster(devices);
    cluster.groups.front().hosts = {"a", "b", "c", "d"};
    cluster.groups.front().nics = 1;
    cluster.groups.front().nic_bytes_per_s = 1e9;
    cluster.fabric = {FabricKind::flat, 1e-6, 1e-6, 0, 1};
    StepModel model(job, cluster, &p);
    for (const int tensor : {1, 2}) {
      for (const int pipeline : {1, 2, 4}) {
        Layout layout{.tensor = tensor, .pipeline = pipeline, .data = 2, .micro_batches = 4};
        if (layout.ranks() > 4 * devices) continue;
        const PlacedLayout placed = placed_on(layout, 0);
        const std::vector<Stage> stages = model.cut(placed);
        const Schedule schedule =
            make_schedule({.name = "1f1b", .pipeline = pipeline, .micro_batches = 4});
        const double step =
            model.predict(placed_on(layout, 0), stages, std::make_shared<const Schedule>(schedule))
                .step_seconds;
        EXPECT_LE(model.quick_bound(placed), step * (1 + 1e-9));
        EXPECT_LE(model.cut_bound(placed, model.cut_times(placed, stages)), step * (1 + 1e-9));
      }
    }
  }
}

}  // namespace
}  // namespace trireme
