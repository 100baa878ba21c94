#include <gtest/gtest.h>

#include <cmath>

#include "planner/cost/accuracy.h"
#include "planner/cost/communication.h"
#include "planner/cost/kernels.h"
#include "planner/cost/memory.h"
#include "planner/cost/step.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

// Narayanan et al. 2021, equation 3, for one token: 96 l h^2 (1 + s/(6h) + V/(16lh)) with full
// recomputation, of which the model's own part is 72 l h^2 (1 + s/(6h) + V/(12lh)).
TEST(Flops, FollowEquationThreeOfMegatron) {
  const Model model = gpt2_model(96, 12288, 96, 51200, 2048);
  const double l = 96, h = 12288, s = 2048, v = 51200;
  EXPECT_NEAR(
      model_flops_per_token(model) / (72 * l * h * h * (1 + s / (6 * h) + v / (12 * l * h))), 1,
      1e-12);
  EXPECT_NEAR(hardware_flops_per_token(model, Recompute::full) /
                  (96 * l * h * h * (1 + s / (6 * h) + v / (16 * l * h))),
              1, 1e-12);
}

TEST(Kernels, SumToTheForwardFlopsOfALayer) {
  const Model model = gpt2_model(1, 1024, 16, 50304, 512);
  const WorkShape shape{.micro_batch = 2};
  double flops = 0;
  for (const Kernel& kernel : layer_kernels(model, shape).forward) flops += kernel.flops;
  const double tokens = 2 * 512, h = 1024;
  // 24 h^2 of matrices; attention is causal, so half of 4 s h.
  EXPECT_NEAR(flops, tokens * (24 * h * h + 2 * 512 * h), 1);
}

TEST(Kernels, BackwardOfTheMatricesIsTwiceTheForward) {
  const Model model = gpt2_model(1, 1024, 16, 50304, 512);
  const PartKernels head = head_kernels(model, {});
  double forward = 0, backward = 0;
  for (const Kernel& kernel : head.forward) forward += kernel.flops;
  for (const Kernel& kernel : head.input) backward += kernel.flops;
  for (const Kernel& kernel : head.weight) backward += kernel.flops;
  EXPECT_DOUBLE_EQ(backward, 2 * forward);
}

// 6 key-value heads over 4 ranks: 2, 2, 1, 1; each serves 2 query heads of width 8.
TEST(Kernels, UnevenHeadsGiveTheFirstRankTheCeiling) {
  Model model = gpt2_model(1, 96, 12, 1000, 16);
  model.kv_heads = 6;
  const TensorShare share = largest_share(model, 4);
  EXPECT_EQ(share.kv, 16);
  EXPECT_EQ(share.query, 32);
  EXPECT_EQ(share.ffn, 96);
  EXPECT_EQ(share.vocab, 250);
}

TEST(Kernels, TakeTheLongerOfArithmeticAndMemory) {
  const DeviceSpeed speed{.flops = 100, .bytes_per_s = 10, .start_s = 1};
  Kernel product{.kind = Kernel::Kind::matmul, .flops = 200, .bytes = 10};
  EXPECT_DOUBLE_EQ(speed.seconds(product), 3);
  product.bytes = 50;
  EXPECT_DOUBLE_EQ(speed.seconds(product), 6);
}

// 10 multiprocessors and 256 x 128 tiles: 2560 x 128 is one full wave, a row more starts another
// tile, which in a wave of its own costs what the whole product did, or smaller tiles throughout.
TEST(Kernels, OneTileTooManyCostsMoreThanItsArithmetic) {
  const DeviceSpeed speed{.flops = 1e12, .bytes_per_s = 1e15, .start_s = 0, .multiprocessors = 10};
  const auto product = [](double m) {
    return Kernel{
        .kind = Kernel::Kind::matmul, .flops = 2 * m * 4096 * 128, .m = m, .k = 4096, .n = 128};
  };
  const double full = speed.seconds(product(2560));
  EXPECT_NEAR(full, 2.0 * 2560 * (4096 + 96) * 128 / 1e12, 1e-12);
  EXPECT_GT(speed.seconds(product(2561)), 1.1 * full);
  EXPECT_GT(speed.seconds(product(256)), 1.2 * full / 10);
}

TEST(Kernels, TheHostMayBeSlowerThanTheDevice) {
  const DeviceSpeed speed{.flops = 1e12, .bytes_per_s = 1e12, .start_s = 0, .issue_s = 1e-5};
  EXPECT_DOUBLE_EQ(speed.seconds(std::vector<Kernel>(8, Kernel{.bytes = 1e3})), 8e-5);
  EXPECT_DOUBLE_EQ(speed.seconds(std::vector<Kernel>(8, Kernel{.bytes = 1e9})), 8e-3);
}

TEST(Kernels, SlotsThatShareCoresAreSlower) {
  const Job job = gpt2_job(gpt2_model(4, 64, 4, 256, 32), 8);
  Cluster cluster = round_cluster(1, 8, 10);
  cluster.groups[0].device.name = "cpu";
  Layout layout;
  layout.tensor = 1;
  layout.data = 8;
  layout.micro_batches = 1;
  StepModel alone(job, cluster);
  const double full = alone.quick_bound(placed_on(layout, 0));
  cluster.groups[0].cores = 2;
  StepModel crowded(job, cluster);
  EXPECT_NEAR(crowded.quick_bound(placed_on(layout, 0)), 4 * full, 1e-12);
}

TEST(Communication, AllReduceMovesTwiceTheBytesLessOneShare) {
  EXPECT_DOUBLE_EQ(all_reduce_seconds(1, 1e9, {}), 0);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(4, 8e9, {0, 1e9}), 12);
  // 1024 ranks and few bytes: the tree's 2 * 10 latencies, not the ring's 2046.
  EXPECT_NEAR(all_reduce_seconds(1024, 1, {1e-6, 1e9}), 20e-6, 1e-7);
}

TEST(Communication, GroupsThatLeaveANodeShareItsNics) {
  const Cluster cluster = round_cluster(4, 4, 10);
  const Links links(cluster);
  Layout layout;
  layout.tensor = 4;
  layout.data = 2;
  layout.pipeline = 2;
  EXPECT_DOUBLE_EQ(links.tensor(0, 4).bytes_per_s, 1e11);
  // 4 x 10 GB/s for 4 tensor ranks, of which 92 % carry data.
  EXPECT_DOUBLE_EQ(links.data(placed_on(layout, 0)).bytes_per_s, 0.92e10);
  EXPECT_DOUBLE_EQ(links.pipeline(placed_on(layout, 0)).bytes_per_s, 0.92e10);
  layout.tensor = 1;
  layout.data = 4;
  EXPECT_DOUBLE_EQ(links.data(placed_on(layout, 0)).bytes_per_s, 1e11);  // all in one node
}

// Eight H100 send 1 GB nearly twice round a ring at 80 % of 450 GB/s: 2 * 7/8 * 1e9 / 360e9 = 4.86
// ms. Through switches that add it up each sends it once, at 60 %: 1e9 / 270e9 = 3.70 ms. A
// reduce-scatter and an all-gather are the ring's in either case, and so is everything on A100.
TEST(Communication, SwitchesThatAddUpSpareTheSecondTurn) {
  Cluster cluster = round_cluster(2, 8, 80);
  cluster.groups[0].device = *find_device("H100-SXM-80GB");
  cluster.groups[0].link_bytes_per_s = 450e9;
  const Path inside = Links(cluster).tensor(0, 8);
  EXPECT_NEAR(all_reduce_seconds(8, 1e9, inside), 1e9 / 270e9, 1e-12);
  EXPECT_NEAR(scatter_gather_seconds(8, 1e9, inside), 2 * 7.0 / 8 * 1e9 / 360e9, 1e-12);
  cluster.groups[0].device = *find_device("A100-SXM4-80GB");
  cluster.groups[0].link_bytes_per_s = 300e9;
  const Path ring = Links(cluster).tensor(0, 8);
  EXPECT_EQ(all_reduce_seconds(8, 1e9, ring), scatter_gather_seconds(8, 1e9, ring));
}

// Two nodes with four NICs of 10 GB/s: a ring of two moves its bytes once, a tree of switches, too;
// of many, the switches spare half.
TEST(Communication, AFabricAddsUpWhereItIsRunThatWay) {
  Cluster cluster = round_cluster(16, 1, 80);
  const PlacedLayout layout = placed_on({.data = 16}, 0);
  const double ring = all_reduce_seconds(16, 1e9, Links(cluster).data(layout));
  cluster.fabric.switch_reduction = true;
  const double switched = all_reduce_seconds(16, 1e9, Links(cluster).data(layout));
  EXPECT_NEAR(ring / switched, 2 * 15.0 / 16, 1e-9);
}

// Korthikanti et al. 2022, equation 2: with unfused attention s b h (10 + 24/t + 5 a s / (h t)).
TEST(Memory, UnfusedAttentionKeepsScores) {
  const Model model = gpt2_model(1, 1024, 16, 50304, 512);
  WorkShape shape{.micro_batch = 2, .tensor = 4, .dtype = Dtype::bf16};
  shape.execution.dropout = true;
  shape.execution.attention = Attention::unfused;
  const double sbh = 512.0 * 2 * 1024;
  EXPECT_DOUBLE_EQ(stage_activation_bytes(model, shape, false, {.layers = 1}),
                   sbh * (10 + 24.0 / 4 + 5.0 * 16 * 512 / 1024 / 4));
  shape.recompute = Recompute::selective;
  EXPECT_DOUBLE_EQ(stage_activation_bytes(model, shape, false, {.layers = 1}),
                   sbh * (10 + 24.0 / 4));
}

// Korthikanti et al. 2022, equations 2 and 4 without the scores: s b h (10 + 24/t), and 34 s b h /
// t.
TEST(Memory, ActivationsOfALayerFollowThePaper) {
  const Model model = gpt2_model(1, 1024, 16, 50304, 512);
  const Stage layer{.layers = 1};
  WorkShape shape{.micro_batch = 2, .tensor = 4, .dtype = Dtype::bf16};
  shape.execution.dropout = true;
  const double sbh = 512.0 * 2 * 1024;
  EXPECT_DOUBLE_EQ(stage_activation_bytes(model, shape, false, layer), sbh * (10 + 24.0 / 4));
  shape.sequence_parallel = true;
  EXPECT_DOUBLE_EQ(stage_activation_bytes(model, shape, false, layer), sbh * 34 / 4);
  shape.recompute = Recompute::full;
  EXPECT_DOUBLE_EQ(stage_activation_bytes(model, shape, false, layer), sbh * 2 / 4);
}

TEST(Memory, ActivationsOfACpuLayerAreThirteenHiddenAndTwoFfn) {
  const Model model = gpt2_model(1, 384, 6, 256, 256);
  EXPECT_DOUBLE_EQ(stage_activation_bytes(model, {}, true, {.layers = 1}),
                   256.0 * 4 * (13 * 384 + 2 * 4 * 384));
}

TEST(Memory, OneRankHoldsTheParametersOfTheModel) {
  const std::vector<Stage> whole = {{.layers = 12, .embedding = true, .head = true}};
  Model model = gpt2_model(12, 768, 12, 50257, 1024);
  EXPECT_EQ(stage_parameters(model, {}, whole),
            std::vector<double>{static_cast<double>(total_parameters(model))});
  EXPECT_DOUBLE_EQ(total_parameters(model), 124439808);  // GPT-2 small
  model.family = Family::llama;
  model.kv_heads = 4;
  model.tied_embeddings = false;
  EXPECT_EQ(stage_parameters(model, {}, whole),
            std::vector<double>{static_cast<double>(total_parameters(model))});
}

TEST(Memory, TheOrderedReductionKeepsOpenPartialSums) {
  EXPECT_EQ(gradient_buffers(Reduction::fast, 64), 1);
  EXPECT_EQ(gradient_buffers(Reduction::ordered, 1), 1);
  EXPECT_EQ(gradient_buffers(Reduction::ordered, 2), 3);
  EXPECT_EQ(gradient_buffers(Reduction::ordered, 7), 4);
  EXPECT_EQ(gradient_buffers(Reduction::ordered, 8), 5);
}

TEST(Memory, ResidentBytesPerParameter) {
  const Model model = gpt2_model(4, 64, 4, 256, 32);
  Job job = gpt2_job(model, 8);
  Layout layout;
  layout.data = 2;
  const std::vector<Stage> stages = {{.layers = 4, .embedding = true, .head = true}};
  const double n = static_cast<double>(total_parameters(model));
  MemoryParts fp32 = resident_memory(job, {}, layout, stages, false)[0];
  EXPECT_DOUBLE_EQ(fp32.parameters + fp32.gradients + fp32.optimizer, 16 * n);
  job.training.dtype = Dtype::bf16;
  MemoryParts bf16 = resident_memory(job, {}, layout, stages, false)[0];
  EXPECT_DOUBLE_EQ(bf16.parameters + bf16.gradients + bf16.optimizer, 18 * n);
  layout.optimizer_sharding = 1;
  EXPECT_DOUBLE_EQ(resident_memory(job, {}, layout, stages, false)[0].optimizer, 6 * n);
}

TEST(Memory, PeaksFollowTheProgram) {
  const std::vector<double> peaks =
      peak_activation_bytes(one_forward_one_backward_schedule(3, 8), {10, 20, 30});
  EXPECT_EQ(peaks, (std::vector<double>{30, 40, 30}));
}

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
      model.predict(placed, stages, one_forward_one_backward_schedule(4, 8));
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
  const Prediction prediction = model.predict(placed_on(layout, 0), stages, schedule);
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
            model.predict(placed_on(layout, 0), stages, make_schedule(request));
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
      model.predict(placed_on(layout, 0), stages, one_forward_one_backward_schedule(2, 8));
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
      model.predict(placed_on(layout, 0), stages, one_forward_one_backward_schedule(2, 8));
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

// 1F1B on two ranks: the first is fullest from its second forward, the last from its first.
TEST(Step, TheMemoryPeakHasATime) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 8);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  Layout layout{.pipeline = 2};
  layout.micro_batches = 8;
  const std::vector<Stage> stages = even_cut(8, loop_placement(2, 1));
  const Prediction prediction =
      model.predict(placed_on(layout, 0), stages, one_forward_one_backward_schedule(2, 8));
  const double first = prediction.stages[0].forward_seconds;
  ASSERT_EQ(prediction.peak_seconds_per_pipeline_rank.size(), 2U);
  EXPECT_DOUBLE_EQ(prediction.peak_seconds_per_pipeline_rank[0], first);
  EXPECT_DOUBLE_EQ(prediction.peak_seconds_per_pipeline_rank[1],
                   first + prediction.transfer_seconds);
}

TEST(Accuracy, DoubtsNameWhatWasNotMeasured) {
  Plan plan;
  plan.job = gpt2_job(gpt2_model(48, 8192, 64, 51200, 2048), 8);
  plan.device = "A100-SXM4-80GB";
  EXPECT_TRUE(accuracy_of(plan).doubts.empty());
  EXPECT_GT(accuracy_of(plan).runs, 100);
  plan.layout.data = 16384;
  plan.job.model.sequence = 131072;
  EXPECT_EQ(accuracy_of(plan).doubts.size(), 2U);
  plan.device = "X1";
  EXPECT_EQ(accuracy_of(plan).doubts.size(), 3U);
  EXPECT_EQ(accuracy_of(plan).runs, 0);
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
    const Prediction p = model.predict(placed, model.cut(placed), gpipe_schedule(1, 16));
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

// A host that waits for each kernel adds its time to the device's; one that runs ahead hides it.
TEST(Kernels, AHostThatWaitsAddsItsTime) {
  const Device device{.name = "X", .memory_bytes_per_s = 1e12, .bf16_flops = 1e14};
  const std::vector<Kernel> kernels = {{.bytes = 1e9, .launches = 4}};
  const auto seconds = [&](double issue_us, bool ahead) {
    return device_speed(device, Dtype::bf16, 1, {.issue_us = issue_us, .issue_ahead = ahead})
        .seconds(kernels);
  };
  const double alone = seconds(0, true);
  EXPECT_EQ(seconds(10, true), alone);
  EXPECT_NEAR(seconds(10, false), alone + 4 * 10e-6, 1e-12);
  EXPECT_NEAR(seconds(1e6, true), 4, 1e-12);
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

// Forward passes alone neither reduce gradients nor update weights.
TEST(Step, EvaluationIsForwardsAlone) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 64);
  const Cluster cluster = round_cluster(4, 4, 10);
  StepModel model(job, cluster);
  Layout layout{.pipeline = 2, .data = 2, .schedule = "forward-only"};
  layout.micro_batches = 8;
  const PlacedLayout placed = placed_on(layout, 0);
  const Prediction prediction = model.predict(
      placed, model.cut(placed),
      make_schedule({.name = "forward-only", .pipeline = 2, .micro_batches = 8, .chunks = 1}));
  for (const auto& [cause, seconds] : prediction.breakdown) {
    if (cause == "forward" || cause == "pipeline_idle") continue;
    EXPECT_EQ(seconds, 0) << cause;
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
    return model.predict(placed_on(layout, 0), stages, schedule).step_seconds;
  };
  EXPECT_NEAR(step(Recompute::full, false), 18.13, 0.12 * 18.13);
  EXPECT_NEAR(step(Recompute::selective, true), 13.75, 0.12 * 13.75);
}

}  // namespace
}  // namespace trireme
