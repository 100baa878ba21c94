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

// docs/measurements/hopper/h100/products.csv, 4096 tokens of llama-70b, a quarter of its layer:
// 7168 feed-forward columns, gated. The catalogue's rate is that of devices that train together, 4
// % below what one sustained alone (0.70 and 0.73 of the peak).
TEST(Kernels, AreNearTheProductsOfAnH100) {
  const DeviceSpeed speed =
      device_speed(*find_device("H100-SXM-80GB"), Dtype::bf16, 1, Execution{});
  const WorkShape shape{.dtype = Dtype::bf16};
  const PartKernels up = linear_kernels(shape, 4096, 8192, 14336);
  EXPECT_NEAR(speed.seconds(up.forward) / 0.001346, 1.04, 0.06);
  EXPECT_NEAR(speed.seconds(up.input) / 0.001388, 1.04, 0.06);
  EXPECT_NEAR(speed.seconds(up.weight) / 0.001554, 1.04, 0.06);
}

// attention.csv beside it, of cuDNN with 32 heads of 128 on 8: samples, tokens, forward, backward.
TEST(Kernels, AreNearTheAttentionOfAnH100) {
  const DeviceSpeed speed =
      device_speed(*find_device("H100-SXM-80GB"), Dtype::bf16, 1, Execution{});
  const auto attention = [&](const std::vector<Kernel>& kernels) {
    double seconds = 0;
    for (const Kernel& kernel : kernels) {
      if (kernel.kind == Kernel::Kind::attention) seconds += speed.seconds(kernel);
    }
    return seconds;
  };
  struct Measured {
    int samples, tokens;
    double forward, backward;
  };
  for (const Measured& at : {Measured{4, 2048, 262e-6, 994e-6},
                             {2, 4096, 486e-6, 1628e-6},
                             {1, 8192, 923e-6, 2937e-6}}) {
    Model model = gpt2_model(1, 4096, 32, 51200, at.tokens);
    model.kv_heads = 8;
    const WorkShape shape{.micro_batch = at.samples, .dtype = Dtype::bf16};
    const PartKernels layer = layer_kernels(model, shape);
    EXPECT_NEAR(attention(layer.forward) / at.forward, 1, 0.05) << at.tokens;
    EXPECT_NEAR(attention(layer.input) / at.backward, 1, 0.05) << at.tokens;
  }
}

// What was measured of accelerators says nothing of CPU slots: causal attention of a short sequence
// is half of 4 s^2 d FLOPs for each head, in the forward.
TEST(Kernels, AttentionOfCpuSlotsTakesItsFlops) {
  const Device& cpu = *find_device("cpu");
  const DeviceSpeed speed = device_speed(cpu, Dtype::fp32, 1, Execution{});
  const Model model = gpt2_model(1, 256, 4, 1000, 64);
  for (const Kernel& kernel : layer_kernels(model, {}).forward) {
    if (kernel.kind != Kernel::Kind::attention) continue;
    const double flops = 2.0 * 64 * 64 * 256;
    EXPECT_NEAR(speed.seconds(kernel) - speed.start_s,
                flops / (cpu.fp32_flops * cpu.attention_efficiency), 1e-12);
  }
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

// Three stages side by side on nodes of eight: of the replicas the first and the last stay inside a
// node, the third (devices 6, 7 and the next node's first) does not. All three ranks that may send
// from a node share its 40 GB/s.
TEST(Communication, TheReplicaThatLeavesItsNodeSetsTheMessage) {
  const Cluster cluster = round_cluster(3, 8, 10);
  PlacedLayout layout = placed_on({.pipeline = 3, .data = 8}, 0);
  layout.placement.near = Near::pipeline;
  const Path path = Links(cluster).pipeline(layout);
  EXPECT_LE(path.bytes_per_s, 0.92 * 4e10);
  layout.data = 2;  // which fills the first six devices
  EXPECT_DOUBLE_EQ(Links(cluster).pipeline(layout).bytes_per_s, 1e11);
}

// Eight nodes of a device each send to one node of eight, or that one to them: its NICs are shared
// by eight messages either way.
TEST(Communication, ManySendersShareTheReceiversNics) {
  Cluster cluster = round_cluster(1, 8, 10);
  cluster.groups.push_back(cluster.groups[0]);
  cluster.groups[1].hosts.clear();
  for (int n = 0; n < 8; ++n) cluster.groups[1].hosts.push_back("small" + std::to_string(n));
  cluster.groups[1].devices = 1;
  PlacedLayout layout = placed_on({.pipeline = 2, .data = 8}, 0);
  for (const bool small_first : {true, false}) {
    layout.placement.runs = {{small_first ? 1U : 0U, 1}, {small_first ? 0U : 1U, 1}};
    EXPECT_DOUBLE_EQ(Links(cluster).pipeline(layout).bytes_per_s, 0.92 * 4e10 / 8);
  }
}

// Of eight devices below switches of four or two, every one sends to the fourth behind it: all of a
// switch at once through its uplink.
TEST(Communication, DevicesBelowASwitchShareItsUplink) {
  Cluster cluster = round_cluster(1, 8, 10);
  cluster.groups[0].link = NodeLink::pcie;
  const PlacedLayout layout = placed_on({.pipeline = 2, .data = 4}, 0);
  for (const int below : {0, 2, 4}) {
    cluster.groups[0].pcie_switch_devices = below;
    const Links links(cluster);
    EXPECT_DOUBLE_EQ(links.pipeline(layout).bytes_per_s, 1e11 / std::max(1, below));
    EXPECT_DOUBLE_EQ(links.tensor(0, 8).bytes_per_s, 1e11);
  }
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

TEST(Accuracy, AProfileOfCpuSlotsSettlesTheirDoubts) {
  Plan plan;
  plan.job = gpt2_job(gpt2_model(2, 64, 4, 256, 32), 8);
  plan.device = "cpu";
  plan.prediction.breakdown = {{"forward", 1}};
  EXPECT_EQ(accuracy_of(plan).doubts.size(), 1U);
  plan.prediction.breakdown.emplace_back("shared_cores", 0);
  EXPECT_TRUE(accuracy_of(plan).doubts.empty());
  EXPECT_LT(accuracy_of(plan).band, 0.3);
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

}  // namespace
}  // namespace trireme
