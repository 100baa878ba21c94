#include "planner/cost/step.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "planner/assumptions.h"
#include "planner/candidates.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

TEST(Step, TheBreakdownSumsToTheStep) {
  const Job job = gpt2_job(gpt2_model(8, 512, 8, 5000, 256), 32);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  Layout layout;
  layout.tensor = 2;
  layout.pipeline = 4;
  layout.data = 2;
  layout.micro_batch = 2;
  layout.micro_batches = 8;
  const PlacedLayout placed = placed_on(layout, 0);
  const std::vector<Stage> stages = model.cut(placed);
  const Prediction prediction =
      model.predict(placed, stages, shared(one_forward_one_backward_schedule(4, 8)));
  double sum = 0;
  for (const auto& [cause, seconds] : prediction.breakdown) sum += seconds;
  EXPECT_NEAR(sum, prediction.step_seconds, 1e-12);
  EXPECT_GT(prediction.bubble_fraction, 0);
  EXPECT_NEAR(prediction.tokens_per_second, 32 * 256 / prediction.step_seconds, 1e-3);
  EXPECT_NEAR(prediction.mfu, prediction.model_tflops_per_device / 100, 1e-12);
  EXPECT_LE(model.quick_bound(placed), prediction.step_seconds);
  EXPECT_LE(model.cut_bound(placed, model.cut_times(placed, stages)), prediction.step_seconds);
}

// The step is the simulated pipeline plus what the breakdown says comes after it.
TEST(Step, ThePredictedOpsAddUpToThePredictedStep) {
  const Job job = gpt2_job(gpt2_model(8, 512, 8, 5000, 256), 32);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  Layout layout;
  layout.pipeline = 4;
  layout.data = 2;
  layout.micro_batch = 2;
  layout.micro_batches = 8;
  const std::vector<Stage> stages = model.cut(placed_on(layout, 0));
  const Schedule schedule = one_forward_one_backward_schedule(4, 8);
  const Prediction prediction = model.predict(placed_on(layout, 0), stages, shared(schedule));
  Costs costs;
  costs.stages.clear();
  costs.transfer = prediction.transfer_seconds;
  costs.hop = prediction.hop_seconds;
  for (const StagePrediction& stage : prediction.stages) {
    costs.stages.push_back({stage.forward_seconds, stage.input_seconds, stage.weight_seconds});
    EXPECT_GT(stage.activation_bytes, 0);
  }
  EXPECT_GT(costs.transfer, 0);
  double after = 0;
  for (const auto& [cause, seconds] : prediction.breakdown) {
    if (cause == "data_reduction" || cause == "tied_embeddings" || cause == "optimizer") {
      after += seconds;
    }
  }
  EXPECT_NEAR(simulate(schedule, costs).makespan + after, prediction.step_seconds, 1e-12);
}

// Whatever the schedule, no bound exceeds what it bounds, and causes sum to the step.
TEST(Step, BoundsHoldForEverySchedule) {
  const Job job = gpt2_job(gpt2_model(16, 256, 8, 5000, 128), 64);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  for (const std::string& name : built_schedules()) {
    for (const int pipeline : {2, 4}) {
      for (const int micro_batches : {pipeline, 8, 16}) {
        Layout layout{.pipeline = pipeline, .data = 2, .schedule = name};
        layout.chunks = fixed_chunks(name).value_or(2);
        layout.micro_batches = micro_batches;
        const ScheduleRequest request{.name = name,
                                      .pipeline = pipeline,
                                      .micro_batches = micro_batches,
                                      .chunks = layout.chunks};
        if (why_not(request)) continue;
        const PlacedLayout placed = placed_on(layout, 0);
        const std::vector<Stage> stages = model.cut(placed);
        const Prediction prediction =
            model.predict(placed_on(layout, 0), stages, shared(make_schedule(request)));
        const double allowed = prediction.step_seconds * (1 + 1e-9);
        EXPECT_LE(model.quick_bound(placed), allowed) << name << ' ' << pipeline;
        EXPECT_LE(model.cut_bound(placed, model.cut_times(placed, stages)), allowed)
            << name << ' ' << pipeline;
        double sum = 0;
        for (const auto& [cause, seconds] : prediction.breakdown) sum += seconds;
        EXPECT_NEAR(sum, prediction.step_seconds, 1e-9) << name;
      }
    }
  }
}

Layout two_of_each() {
  Layout layout{.tensor = 2, .pipeline = 2, .data = 2};
  layout.micro_batch = 2;
  layout.micro_batches = 8;
  return layout;
}

// Two stages of 4 layers, tensor 2, data 2, 8 micro-batches of 2 x 128 tokens of 256 fp32 numbers:
// an all-reduce of 2 ranks sends as many bytes as it reduces, 262144. A stage has 2 a layer each
// way, 16, and one of the embedding or the head; a rank sends 8 outputs or 8 gradients.
TEST(Step, TrafficCountsWhatTheBusiestDeviceSends) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 32);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  const Layout layout = two_of_each();
  const std::vector<Stage> stages = even_cut(8, loop_placement(2, 1));
  const Prediction prediction =
      model.predict(placed_on(layout, 0), stages, shared(one_forward_one_backward_schedule(2, 8)));
  const double message = 2 * 128 * 256 * 4;
  ASSERT_EQ(prediction.traffic.size(), 3U);
  EXPECT_EQ(prediction.traffic[0].axis, "tensor");
  EXPECT_DOUBLE_EQ(prediction.traffic[0].bytes, 8 * 17 * message);
  EXPECT_DOUBLE_EQ(prediction.traffic[1].bytes, 4 * stage_parameters(job.model, layout, stages)[0]);
  EXPECT_DOUBLE_EQ(prediction.traffic[2].bytes, 8 * message);
  EXPECT_DOUBLE_EQ(prediction.traffic[2].seconds,
                   8 * (prediction.transfer_seconds + prediction.hop_seconds));
}

// The same on nodes of two devices, two of them on a leaf, stage 0 on the first leaf: a tensor
// group fills a node, so a node sends 2 ranks' gradients to the other replica, and 2 ranks' outputs
// and gradients of the tied embedding, 2500 of its rows each, to the other leaf; a leaf sends what
// its two nodes send there.
TEST(Step, TheBusiestLinkOfEachTierIsKnown) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 32);
  Cluster cluster = round_cluster(4, 2, 10);
  cluster.fabric = {.kind = FabricKind::tree, .leaf_nodes = 2, .oversubscription = 4};
  StepModel model(job, cluster);
  const Layout layout = two_of_each();
  const std::vector<Stage> stages = even_cut(8, loop_placement(2, 1));
  const Prediction prediction =
      model.predict(placed_on(layout, 0), stages, shared(one_forward_one_backward_schedule(2, 8)));
  const double outputs = 8.0 * 2 * 128 * 256 * 4;
  const double gradients = 4 * stage_parameters(job.model, layout, stages)[0];
  const double tied = 2500 * 256 * 4;
  const double node = 0.92 * cluster.groups[0].nics * cluster.groups[0].nic_bytes_per_s;
  ASSERT_EQ(prediction.links.size(), 3U);
  const LinkTraffic &of_device = prediction.links[0], &of_node = prediction.links[1],
                    &of_leaf = prediction.links[2];
  EXPECT_EQ(of_device.link, "device");
  EXPECT_DOUBLE_EQ(of_device.bytes, prediction.traffic[0].bytes);
  EXPECT_EQ(of_node.where, cluster.groups[0].hosts[0]);
  EXPECT_DOUBLE_EQ(of_node.bytes, 2 * (outputs + gradients + tied));
  EXPECT_DOUBLE_EQ(of_node.seconds, of_node.bytes / node);
  EXPECT_EQ(of_leaf.where, cluster.groups[0].hosts[0] + " to " + cluster.groups[0].hosts[1]);
  EXPECT_DOUBLE_EQ(of_leaf.bytes, 4 * (outputs + tied));
  EXPECT_DOUBLE_EQ(of_leaf.seconds, of_leaf.bytes / (2 * node / 4));
}

// Whether some of the step is spent waiting for shared links.
bool expect_links_within_the_step(StepModel& model, const PlacedLayout& placed,
                                  const std::shared_ptr<const Schedule>& schedule) {
  const std::vector<Stage> stages = model.cut(placed);
  const Prediction prediction = model.predict(placed, stages, schedule);
  const double step = prediction.step_seconds, allowed = step * (1 + 1e-9);
  const double at_most = model.shared_links_at_most(placed, stages) * (1 + 1e-9);
  for (const LinkTraffic& link : prediction.links) {
    EXPECT_LE(link.seconds, allowed);
    EXPECT_LE(link.link == kDeviceLink ? 0 : link.seconds, at_most) << link.link;
  }
  EXPECT_LE(model.cut_bound(placed, model.cut_times(placed, stages)), allowed);
  EXPECT_EQ(model.seconds_within(placed, stages, schedule, 1e9), step);
  EXPECT_FALSE(model.seconds_within(placed, stages, schedule, 0.999 * step));
  double sum = 0;
  for (const auto& [cause, seconds] : prediction.breakdown) sum += seconds;
  EXPECT_NEAR(sum, step, 1e-9 * sum);
  return prediction.breakdown.back().first == "shared_links";
}

// Pipeline ranks share a node's only NIC, 10 MB/s: one sends outputs on while the other sends
// gradients back. On nodes of three devices stages begin anywhere in a node.
TEST(Step, NoStepIsShorterThanASharedLinkIsBusy) {
  const Job job = gpt2_job(gpt2_model(16, 256, 8, 5000, 128), 64);
  int waited = 0;
  for (const int devices : {2, 3}) {
    Cluster cluster = round_cluster(4, devices, 10);
    cluster.groups[0].nics = 1;
    cluster.groups[0].nic_bytes_per_s = 1e7;
    cluster.fabric = {.kind = FabricKind::tree, .leaf_nodes = 2, .oversubscription = 2};
    StepModel model(job, cluster);
    for (const std::string& name : built_schedules()) {
      for (const int pipeline : {1, 2, 4, 8}) {
        Layout layout{.pipeline = pipeline, .data = 8 / pipeline, .schedule = name};
        layout.chunks = fixed_chunks(name).value_or(2);
        layout.micro_batches = 64 / layout.data;
        const ScheduleRequest request{.name = name,
                                      .pipeline = pipeline,
                                      .micro_batches = layout.micro_batches,
                                      .chunks = layout.chunks};
        if (why_not(request)) continue;
        const auto schedule = std::make_shared<const Schedule>(make_schedule(request));
        for (const int sharding : {0, 1}) {
          PlacedLayout placed = placed_on(layout, 0);
          placed.optimizer_sharding = sharding;
          for (const Near near : near_choices(placed, cluster)) {
            SCOPED_TRACE(fmt::format("{} {} of {}, sharding {}, near {}", name, pipeline, devices,
                                     sharding, static_cast<int>(near)));
            placed.placement.near = near;
            if (expect_links_within_the_step(model, placed, schedule)) ++waited;
          }
        }
      }
    }
  }
  EXPECT_GT(waited, 0);
}

// Where switches add up a rank sends its gradients once, and not 3/2 of them as on a ring of four.
TEST(Step, SwitchesThatAddUpTakeEachByteOnce) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
  Cluster cluster = round_cluster(4, 1, 10);
  Layout layout{.data = 4};
  layout.micro_batches = 16;
  const auto sent = [&] {
    StepModel model(job, cluster);
    const PlacedLayout placed = placed_on(layout, 0);
    return model
        .predict(placed, model.cut(placed), shared(one_forward_one_backward_schedule(1, 16)))
        .traffic.at(0)
        .bytes;
  };
  const double gradients =
      4 * stage_parameters(job.model, layout, even_cut(8, loop_placement(1, 1)))[0];
  EXPECT_DOUBLE_EQ(sent(), 1.5 * gradients);
  cluster.fabric.switch_reduction = true;
  EXPECT_DOUBLE_EQ(sent(), gradients);
}

// A weight gradient hides the collectives of the input gradient that it follows; as an op of its
// own it runs elsewhere.
TEST(Step, SplitBackwardsHideNoTensorCollectives) {
  Job job = gpt2_job(gpt2_model(8, 1024, 8, 5000, 128), 8, Dtype::bf16);
  const Cluster cluster = round_cluster(2, 4, 80);
  const auto input = [&](const char* schedule, TensorOverlap overlap) {
    job.execution.overlap_tensor = overlap;
    StepModel model(job, cluster);
    const PlacedLayout placed =
        placed_on({.tensor = 4, .pipeline = 2, .schedule = schedule, .micro_batches = 8}, 0);
    const std::vector<Stage> stages = even_cut(8, loop_placement(2, 1));
    return model.costs(placed, stages).stages[0].input;
  };
  const double shown = input("1f1b", TensorOverlap::none);
  EXPECT_LT(input("1f1b", TensorOverlap::backward), shown);
  EXPECT_DOUBLE_EQ(input("zb-h1", TensorOverlap::none), shown);
  EXPECT_DOUBLE_EQ(input("zb-h1", TensorOverlap::backward), shown);
  EXPECT_LE(input("1f1b", TensorOverlap::full), input("zb-h1", TensorOverlap::full));
}

// Where reducing takes longer than the backward, the link is busy from the first gradients on:
// those of the last of n layers of a stage, which are there after B / n of its last backward. What
// a rank reduces is the same however many chunks it has.
TEST(Step, TheChunksOfARankReduceOneAfterTheOther) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 4);
  job.model.tied_embeddings = false;  // of which chunks hold a copy
  Cluster cluster = round_cluster(4, 1, 10);
  cluster.groups[0].nic_bytes_per_s = 1e6;
  StepModel model(job, cluster);
  const auto predict = [&](int chunks) {
    Layout layout{.data = 4, .chunks = chunks, .schedule = "interleaved"};
    const Schedule schedule =
        make_schedule({.name = "interleaved", .pipeline = 1, .micro_batches = 1, .chunks = chunks});
    const PlacedLayout placed = placed_on(layout, 0);
    return model.predict(placed, even_cut(8, loop_placement(1, chunks)), shared(schedule));
  };
  const auto last_backward = [](const Prediction& prediction) {
    const StagePrediction& stage = prediction.stages.back();
    return stage.input_seconds + stage.weight_seconds;
  };
  const Prediction one = predict(1);
  for (const int chunks : {2, 4, 8}) {
    const Prediction several = predict(chunks);
    const double first_gradients = last_backward(several) / (8.0 / chunks) - last_backward(one) / 8;
    EXPECT_NEAR(several.step_seconds - one.step_seconds, first_gradients, 1e-9 * one.step_seconds)
        << chunks;
  }
}

// 1F1B on two ranks: the first is fullest from its second forward, the last from its first.
TEST(Step, TheMemoryPeakHasATime) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 8);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  Layout layout{.pipeline = 2};
  layout.micro_batches = 8;
  const std::vector<Stage> stages = even_cut(8, loop_placement(2, 1));
  const PlacedLayout placed = placed_on(layout, 0);
  const auto schedule = shared(one_forward_one_backward_schedule(2, 8));
  EXPECT_TRUE(model.predict(placed, stages, schedule).peak_seconds_per_pipeline_rank.empty());
  const Prediction prediction = model.predict(placed, stages, schedule, true);
  const double first = prediction.stages[0].forward_seconds;
  const std::vector<double>& peaks = prediction.peak_seconds_per_pipeline_rank;
  ASSERT_EQ(peaks.size(), 2U);
  EXPECT_DOUBLE_EQ(peaks[0], first);
  EXPECT_DOUBLE_EQ(peaks[1], first + prediction.transfer_seconds);
}

// Sharded over the two replicas of a node, gradients are summed over all four, 3/2 of their bytes
// at the 10 GB/s less 8 % of a node's NICs, and half of the new weights' bytes comes over NVLink.
// Tensor by tensor, 8 layers of 16 tensors take two latencies of 3 us more.
TEST(Step, AnOptimizerCanBeShardedWithinANode) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64, Dtype::bf16);
  job.execution.overlap_gradients = false;
  job.execution.sharding_ranks = 2;
  Cluster cluster = round_cluster(2, 2, 10);
  cluster.groups[0].link_latency_s = 3e-6;
  cluster.groups[0].nics = 1;
  Layout layout{.data = 4, .optimizer_sharding = 1};
  layout.micro_batches = 16;
  const PlacedLayout placed = placed_on(layout, 0);
  const auto reduction = [&] {
    StepModel model(job, cluster);
    const Prediction p = model.predict(placed, model.cut(placed), shared(gpipe_schedule(1, 16)));
    return std::find_if(p.breakdown.begin(), p.breakdown.end(),
                        [](const auto& cause) { return cause.first == "data_reduction"; })
        ->second;
  };
  const double parameters =
      stage_parameters(job.model, layout, even_cut(8, loop_placement(1, 1))).front();
  const double in_buckets = reduction();
  EXPECT_NEAR(in_buckets,
              1.5 * 4 * parameters / 9.2e9 + 2 * parameters / 2 / 1e11 + 6 * 3e-6 + 3e-6, 2e-5);
  job.execution.sharding_buckets = false;
  EXPECT_NEAR(reduction() - in_buckets, 2 * 8 * 16 * 3e-6, 1e-12);
}

// A naive step of two ranks is one micro-batch after the other, each sent forth and back once: as
// long whether messages block their senders or not. In GPipe a sender that goes on hides them
// behind the next micro-batch; one that waits adds each message to the op that makes it: with 16
// micro-batches, forwards of 0 and backwards of 1 that much longer, and the last op of each phase
// on the other rank no later.
TEST(Step, ASendThatBlocksIsPartOfItsOp) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
  const Cluster cluster = round_cluster(2, 1, 10);
  Layout layout{.pipeline = 2};
  layout.micro_batches = 16;
  layout.micro_batch = 4;
  const auto costs = [&](bool overlap) {
    job.execution.overlap_pipeline = overlap;
    StepModel model(job, cluster);
    const PlacedLayout placed = placed_on(layout, 0);
    return model.costs(placed, model.cut(placed));
  };
  const Costs going_on = costs(true), waiting = costs(false);
  const double message = going_on.transfer + going_on.hop;
  ASSERT_GT(message, 0);
  EXPECT_EQ(waiting.transfer + waiting.hop, 0);
  EXPECT_DOUBLE_EQ(waiting.stages[0].forward, going_on.stages[0].forward + message);
  EXPECT_DOUBLE_EQ(waiting.stages[0].input, going_on.stages[0].input);
  EXPECT_DOUBLE_EQ(waiting.stages[1].forward, going_on.stages[1].forward);
  EXPECT_DOUBLE_EQ(waiting.stages[1].input, going_on.stages[1].input + message);
  const auto makespan = [](const char* name, const Costs& times) {
    return makespan_of(
        make_schedule({.name = name, .pipeline = 2, .micro_batches = 16, .chunks = 1}), times);
  };
  EXPECT_NEAR(makespan("naive", waiting), makespan("naive", going_on), 1e-12);
  EXPECT_GT(makespan("gpipe", waiting), makespan("gpipe", going_on) + message);
}

// Four tensor ranks hold the same 8 * 128 * 256 numbers of 4 bytes. Each sends all of it, or a
// quarter that is then gathered: three quarters of it over links of 100 GB/s without latency.
TEST(Step, TensorRanksCanSendSharesOfAMessage) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
  const Cluster cluster = round_cluster(2, 4, 10);
  Layout layout{.tensor = 4, .pipeline = 2};
  layout.micro_batch = layout.micro_batches = 8;
  const auto costs = [&](bool split) {
    job.execution.split_messages = split;
    StepModel model(job, cluster);
    const PlacedLayout placed = placed_on(layout, 0);
    return model.costs(placed, model.cut(placed));
  };
  EXPECT_DOUBLE_EQ(costs(true).transfer, costs(false).transfer / 4);
  EXPECT_DOUBLE_EQ(costs(true).hop - costs(false).hop, 0.75 * 8 * 128 * 256 * 4 / 1e11);
}

// In 1F1B on two ranks the first holds two micro-batches, the second one. A device that has room
// for one layer less than the first would have by time alone gives it that one less; where nothing
// fits, the cut is by time.
TEST(Step, TheCutGivesWayToMemory) {
  const Job job = gpt2_job(gpt2_model(12, 256, 8, 5000, 128), 64);
  Layout layout{.pipeline = 2};
  layout.micro_batch = 8;
  layout.micro_batches = 8;
  const PlacedLayout placed = placed_on(layout, 0);
  const auto first_rank_layers = [&](double memory_gb) {
    const Cluster cluster = round_cluster(2, 1, memory_gb);
    StepModel model(job, cluster);
    return model.cut(placed)[0].layers;
  };
  const Cluster large = round_cluster(2, 1, 1000);
  StepModel model(job, large);
  const std::vector<Stage> by_time = model.cut(placed);
  const Schedule schedule =
      make_schedule({.name = "1f1b", .pipeline = 2, .micro_batches = 8, .chunks = 1});
  const double needed = model.memory(placed, by_time, schedule)[0].total() / 1e9;
  EXPECT_EQ(first_rank_layers(needed), by_time[0].layers);
  EXPECT_EQ(first_rank_layers(needed - 1e-3), by_time[0].layers - 1);
  EXPECT_EQ(first_rank_layers(1.6), by_time[0].layers);
}

// Of 64 normal variates the largest is expected sqrt(2 ln 64) = 2.884 standard deviations above the
// mean, of the 4 of a node sqrt(2 ln 4) = 1.665: with 2 % that is 2.44 % more work in a step.
TEST(Step, ManyDevicesGoAtThePaceOfTheSlowest) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
  Cluster cluster = round_cluster(16, 4, 10);
  const auto work = [&](int data) {
    StepModel model(job, cluster);
    Layout layout{.data = data};
    layout.micro_batches = 64 / data;
    const PlacedLayout placed = placed_on(layout, 0);
    const StageCost cost = model.costs(placed, model.cut(placed)).stages[0];
    return cost.forward + cost.backward();
  };
  EXPECT_DOUBLE_EQ(work(64), work(4));
  cluster.groups[0].device.speed_spread = 0.02;
  EXPECT_NEAR(work(64) / work(4), 1 + 0.02 * (2.884 - 1.665), 1e-4);
}

// Of two pipeline ranks the first alone recomputes: its stage has the activations and the backward
// of a layout that recomputes everywhere, the second those of one that never does; and a layer
// takes it longer, so that it gets fewer.
TEST(Step, TheFirstPipelineRanksCanRecomputeAlone) {
  const Job job = gpt2_job(gpt2_model(12, 256, 8, 5000, 128), 64, Dtype::bf16);
  const Cluster cluster = round_cluster(2, 1, 10);
  StepModel model(job, cluster);
  Layout layout{.pipeline = 2};
  layout.micro_batches = 64;
  const auto placed = [&](Recompute recompute, int ranks) {
    layout.recompute = recompute;
    layout.recompute_ranks = ranks;
    return placed_on(layout, 0);
  };
  const PlacedLayout all = placed(Recompute::full, 0), none = placed(Recompute::none, 0);
  const PlacedLayout first = placed(Recompute::full, 1);
  const std::vector<Stage> stages = model.cut(none);
  EXPECT_EQ(model.costs(first, stages).stages[0].input, model.costs(all, stages).stages[0].input);
  EXPECT_EQ(model.costs(first, stages).stages[1].input, model.costs(none, stages).stages[1].input);
  const Schedule schedule =
      make_schedule({.name = "1f1b", .pipeline = 2, .micro_batches = 64, .chunks = 1});
  const auto held = [&](const PlacedLayout& which, size_t rank) {
    return model.memory(which, stages, schedule)[rank].activations;
  };
  EXPECT_EQ(held(first, 0), held(all, 0));
  EXPECT_EQ(held(first, 1), held(none, 1));
  EXPECT_LT(held(all, 1), held(none, 1));
  EXPECT_LT(model.cut(first)[0].layers, stages[0].layers);
}

// Forward passes alone neither reduce gradients nor update weights, do a third of the FLOPs, and
// keep nothing: weights are what a rank has, and what a layer and the head hold while they run.
TEST(Step, EvaluationIsForwardsAlone) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  Layout layout{.pipeline = 2, .data = 2, .schedule = "forward-only"};
  layout.micro_batches = 8;
  const PlacedLayout placed = placed_on(layout, 0);
  const Prediction prediction = model.predict(
      placed, model.cut(placed),
      shared(
          make_schedule({.name = "forward-only", .pipeline = 2, .micro_batches = 8, .chunks = 1})));
  for (const auto& [cause, seconds] : prediction.breakdown) {
    if (cause == "forward" || cause == "pipeline_idle") continue;
    EXPECT_EQ(seconds, 0) << cause;
  }
  const double tokens = prediction.tokens_per_second / layout.ranks();
  EXPECT_DOUBLE_EQ(prediction.model_tflops_per_device,
                   tokens * model_flops_per_token(job.model) / 3 / 1e12);
  EXPECT_EQ(prediction.hardware_tflops_per_device, prediction.model_tflops_per_device);
  EXPECT_LT(prediction.mfu, 1);
  const auto memory = model.memory(
      placed, model.cut(placed),
      make_schedule({.name = "forward-only", .pipeline = 2, .micro_batches = 8, .chunks = 1}));
  const WorkShape one_layer{.execution = execution_of(job, cluster)};
  for (const MemoryParts& rank : memory) {
    EXPECT_EQ(rank.gradients + rank.optimizer, 0);
    EXPECT_LE(rank.activations,
              2 * stage_activation_bytes(job.model, one_layer, false, {.layers = 1, .head = true}));
  }
}

// Korthikanti et al. 2022, table 5: a step of the 175B model on 64 A100, tensor 8, pipeline 8 with
// 3 chunks, 64 micro-batches of one sample, takes 18.13 s with full recomputation, and 13.75 s with
// selective recomputation and sequence parallelism. 12 % is far more than the fit of any constant.
TEST(Step, ThePublishedStepsOfA175BModel) {
  Job job = gpt2_job(gpt2_model(96, 12288, 96, 51200, 2048), 64, Dtype::bf16);
  job.execution = {.attention = Attention::unfused,
                   .dropout = true,
                   .gradient_dtype = Dtype::bf16,
                   .overlap_gradients = false,
                   .overlap_tensor = TensorOverlap::backward};
  Cluster cluster = round_cluster(8, 8, 80);
  cluster.groups[0].device = *find_device("A100-SXM4-80GB");
  cluster.groups[0].link_bytes_per_s = 300e9;
  cluster.groups[0].link_latency_s = 3e-6;
  cluster.groups[0].nics = 8;
  cluster.groups[0].nic_bytes_per_s = 25e9;
  Layout layout{.tensor = 8, .pipeline = 8, .chunks = 3, .schedule = "interleaved"};
  layout.micro_batches = 64;
  const auto step = [&](Recompute recompute, bool sequence_parallel) {
    layout.recompute = recompute;
    layout.sequence_parallel = sequence_parallel;
    StepModel model(job, cluster);
    const std::vector<Stage> stages = model.cut(placed_on(layout, 0));
    const Schedule schedule =
        make_schedule({.name = "interleaved", .pipeline = 8, .micro_batches = 64, .chunks = 3});
    return model.predict(placed_on(layout, 0), stages, shared(schedule)).step_seconds;
  };
  EXPECT_NEAR(step(Recompute::full, false), 18.13, 0.12 * 18.13);
  EXPECT_NEAR(step(Recompute::selective, true), 13.75, 0.12 * 13.75);
}

}  // namespace
}  // namespace trireme
