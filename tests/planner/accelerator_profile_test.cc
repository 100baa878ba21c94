#include "planner/profile/accelerator_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "planner/cost/step.h"
#include "planner/profile/profile.h"
#include "planner/schedules/schedules.h"
#include "planner/search.h"
#include "tests/planner/test_inputs.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using testing::HasSubstr;
using Collective = AcceleratorProfile::Collective;

const char* const kFile = R"(format = "trireme profile 1"
device = "X"

[model]
family = "gpt2"
hidden = 256
heads = 8
kv_heads = 8
head_dim = 32
ffn_hidden = 1024
vocab = 5000
sequence = 128
tied_embeddings = true
dtype = "fp32"

[[measured]]
tensor = 2
micro_batch = 1
layer = {forward = 0.001, input = 0.002, weight = 0.0015}

[[measured]]
tensor = 2
micro_batch = 4
layer = {forward = 0.004, input = 0.005, weight = 0.0045}
head = {forward = 0.01, input = 0.01, weight = 0.01}

[[collective]]
kind = "all_reduce"
ranks = 4
bytes = 1e6
seconds = 1e-4

[[collective]]
kind = "all_reduce"
ranks = 4
bytes = 3e6
seconds = 2e-4
)";

Profile profile(const std::string& text = kFile) {
  return parse_profile(text, "p.toml");
}

Job job() {
  return gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
}

// Between micro-batches of 1 and 4 a line: 0.001 + (2 - 1) / 3 * 0.003 at 2; beyond it goes on. The
// head has one end of the line alone, so nothing is known of it between.
TEST(AcceleratorProfile, LiesOnALineThroughWhatWasMeasured) {
  const AcceleratorProfile measured = *profile().accelerator;
  const auto at = [&](int micro_batch) {
    return *measured.parts(2, micro_batch, false, Recompute::none);
  };
  EXPECT_DOUBLE_EQ(at(1).layer.forward, 0.001);
  EXPECT_DOUBLE_EQ(at(2).layer.forward, 0.002);
  EXPECT_DOUBLE_EQ(at(8).layer.forward, 0.008);
  EXPECT_FALSE(at(2).head);
  EXPECT_FALSE(measured.parts(4, 1, false, Recompute::none));
  EXPECT_FALSE(measured.parts(2, 1, true, Recompute::none));
  EXPECT_FALSE(measured.parts(2, 1, false, Recompute::full));
}

TEST(AcceleratorProfile, CollectivesTakeAtLeastWhatTheSmallestTook) {
  const AcceleratorProfile measured = *profile().accelerator;
  EXPECT_DOUBLE_EQ(*measured.seconds(Collective::all_reduce, 4, 1, 10), 1e-4);
  EXPECT_DOUBLE_EQ(*measured.seconds(Collective::all_reduce, 4, 1, 2e6), 1.5e-4);
  EXPECT_DOUBLE_EQ(*measured.seconds(Collective::all_reduce, 4, 1, 5e6), 3e-4);
  EXPECT_FALSE(measured.seconds(Collective::scatter_gather, 4, 1, 2e6));
  EXPECT_FALSE(measured.seconds(Collective::all_reduce, 4, 2, 2e6));
}

// The last two points fall, as noise has it: their line would reach nothing at 6 MB.
TEST(AcceleratorProfile, CollectivesOfMoreBytesTakeNoLessThanTheLastMeasured) {
  AcceleratorProfile measured = *profile().accelerator;
  for (auto& row : measured.collectives) row.seconds = row.bytes == 3e6 ? 6e-5 : 1e-4;
  EXPECT_DOUBLE_EQ(*measured.seconds(Collective::all_reduce, 4, 1, 2e6), 8e-5);
  EXPECT_DOUBLE_EQ(*measured.seconds(Collective::all_reduce, 4, 1, 1e9), 6e-5);
}

// A stage of 8 layers on two tensor ranks takes 8 times the measured layer, and what was not
// measured of it (embedding and head for micro-batches of 1) as without a profile.
TEST(AcceleratorProfile, MeasuredLayersTakeThePlaceOfTheClusterFilesFigures) {
  const Job job = trireme::job();
  const Cluster cluster = round_cluster(1, 4, 80);
  const Profile figures = profile();
  const Layout layout{.tensor = 2, .micro_batches = 64};
  const PlacedLayout placed = placed_on(layout, 0);
  StepModel with(job, cluster, &figures), without(job, cluster);
  const std::vector<Stage> stages = with.cut(placed);
  const auto forward = [&](StepModel& model, int layers) {
    std::vector<Stage> stage = stages;
    stage[0].layers = layers;
    return model.costs(placed, stage).stages[0].forward;
  };
  EXPECT_NEAR(forward(with, 8) - forward(with, 0), 8 * 0.001, 1e-12);
  EXPECT_DOUBLE_EQ(forward(with, 0), forward(without, 0));
  const PlacedLayout other =
      placed_on({.tensor = 2, .micro_batches = 64, .sequence_parallel = true}, 0);
  EXPECT_EQ(with.costs(other, stages).stages[0].input,
            without.costs(other, stages).stages[0].input);
  EXPECT_THAT(with.basis(placed), HasSubstr("those of the profile"));
  EXPECT_THAT(with.basis(other), HasSubstr("no layer times"));
}

// Four replicas sum the gradients of all parameters: as measured for 3 MB and extended, a line of
// 1e-4 s per 2 MB.
TEST(AcceleratorProfile, MeasuredCollectivesSumTheGradients) {
  Job job = trireme::job();
  job.execution.overlap_gradients = false;
  const Cluster cluster = round_cluster(1, 4, 80);
  const Profile figures = profile();
  Layout layout{.data = 4};
  layout.micro_batches = 16;
  StepModel model(job, cluster, &figures);
  const PlacedLayout placed = placed_on(layout, 0);
  const Prediction prediction = model.predict(
      placed, model.cut(placed),
      shared(make_schedule({.name = "1f1b", .pipeline = 1, .micro_batches = 16, .chunks = 1})));
  const double bytes = 4.0 * static_cast<double>(total_parameters(job.model));
  const auto reduction =
      std::find_if(prediction.breakdown.begin(), prediction.breakdown.end(),
                   [](const auto& part) { return part.first == "data_reduction"; });
  EXPECT_NEAR(reduction->second, bytes / 2e6 * 1e-4 + 0.5e-4, 1e-9);
}

// Measured figures may contradict what the bounds take for granted, such as that recomputation
// takes longer: the plan is the fastest of all layouts all the same.
TEST(AcceleratorProfile, ThePlanFollowsFiguresThatContradictTheModel) {
  std::string text = kFile;
  text += R"(
[[measured]]
tensor = 1
micro_batch = 1
recompute = "full"
layer = {forward = 1e-9, input = 1e-9, weight = 1e-9}
)";
  PlanOptions options;
  options.profile = std::make_shared<Profile>(profile(text));
  const PlanResult result = find_plan(job(), round_cluster(1, 4, 80), options);
  EXPECT_EQ(result.plan.layout.tensor, 1);
  EXPECT_EQ(result.plan.layout.recompute, Recompute::full);
}

TEST(AcceleratorProfile, IsForItsDeviceAndModelAlone) {
  Cluster cluster = round_cluster(1, 4, 80);
  cluster.groups[0].device.name = "Y";
  const Profile figures = profile();
  const Job job = trireme::job();
  StepModel model(job, cluster, &figures);
  EXPECT_THAT(model.basis(placed_on({.tensor = 2}, 0)), HasSubstr("other devices"));
  Job wider = job;
  wider.model.hidden = 512;
  EXPECT_THROW(check_profile(figures, wider), Error);
  check_profile(figures, job);
}

TEST(AcceleratorProfile, MistakesAreNamedWithTheirPlace) {
  const auto complaint = [](const std::string& old_text, const std::string& new_text) {
    std::string text = kFile;
    text.replace(text.find(old_text), old_text.size(), new_text);
    try {
      profile(text);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(complaint("micro_batch = 4", "micro_batch = 1"),
            "p.toml:22:10: measured[1].tensor: found the same choices again, expected each "
            "combination once");
  EXPECT_THAT(complaint("kind = \"all_reduce\"", "kind = \"broadcast\""),
              HasSubstr("collective[0].kind: found \"broadcast\", expected one of all_reduce, "
                        "scatter_gather"));
  EXPECT_THAT(complaint("ranks = 4", "ranks = 1"), HasSubstr("expected an integer from 2"));
  EXPECT_THAT(complaint("forward = 0.001", "forwards = 0.001"), HasSubstr("forward"));
}

// The line through 1 and 4 would reach nothing at 16; a step of more cannot take less than of 4.
TEST(AcceleratorProfile, BeyondTheLastMicroBatchNothingTakesLessThanThere) {
  AcceleratorProfile profile;
  profile.measured = {{.tensor = 1, .micro_batch = 1, .parts = {{4e-3, 4e-3, 4e-3}, {}, {}}},
                      {.tensor = 1, .micro_batch = 4, .parts = {{3e-3, 3e-3, 3e-3}, {}, {}}}};
  const auto parts = profile.parts(1, 16, false, Recompute::none);
  ASSERT_TRUE(parts);
  EXPECT_EQ(parts->layer.forward, 3e-3);
  EXPECT_EQ(parts->layer.weight, 3e-3);
}

// No machine is like that, but a file may say so.
TEST(AcceleratorProfile, ALayerThatTakesNothingIsPlannedWith) {
  auto profile = std::make_shared<Profile>(parse_profile(kFile, "p.toml"));
  for (auto& row : profile->accelerator->measured) row.parts.layer = {0, 0, 0};
  Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 16);
  job.pins.tensor = 2;
  PlanOptions options;
  options.profile = profile;
  EXPECT_GT(find_plan(job, round_cluster(1, 4, 80), options).plan.prediction.step_seconds, 0);
}

}  // namespace
}  // namespace trireme
