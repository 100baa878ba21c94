#include "planner/assumptions.h"

#include <gtest/gtest.h>

#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

Cluster cluster_of(const char* device) {
  Cluster cluster = round_cluster(1, 8, 80);
  cluster.groups[0].device = *find_device(device);
  return cluster;
}

const Job kGpt = gpt2_job(gpt2_model(2, 64, 4, 256, 32), 8, Dtype::bf16);

Job llama() {
  Job job = kGpt;
  job.model.family = Family::llama;
  return job;
}

TEST(Assumptions, ProgramsOnDevicesSinceFlashAttentionAreCurrent) {
  for (const char* device : {"H100-SXM-80GB", "B200-SXM-192GB", "L40S", "cpu"}) {
    EXPECT_EQ(execution_of(kGpt, cluster_of(device)), Execution{}) << device;
    EXPECT_EQ(assumptions(kGpt, cluster_of(device)), "") << device;
  }
  EXPECT_EQ(execution_of(kGpt, round_cluster(1, 8, 80)), Execution{});  // a device of one's own
}

TEST(Assumptions, GptOnOlderDevicesStoresItsScores) {
  for (const char* device : {"V100-SXM2-32GB", "T4", "A100-SXM4-80GB"}) {
    const Execution execution = execution_of(kGpt, cluster_of(device));
    EXPECT_EQ(execution.attention, Attention::unfused) << device;
    EXPECT_TRUE(execution.dropout) << device;
    EXPECT_TRUE(execution.fused_elementwise) << device;
    EXPECT_EQ(execution.overlap_tensor, TensorOverlap::none) << device;
    EXPECT_FALSE(execution.overlap_gradients) << device;
    EXPECT_NE(assumptions(kGpt, cluster_of(device)), "") << device;
  }
}

TEST(Assumptions, LlamaOnOlderDevicesFusesAttentionAlone) {
  const Execution execution = execution_of(llama(), cluster_of("A100-SXM4-80GB"));
  EXPECT_EQ(execution.attention, Attention::fused);
  EXPECT_FALSE(execution.dropout);
  EXPECT_FALSE(execution.fused_elementwise);
}

TEST(Assumptions, TheNewestDeviceOfAClusterDecides) {
  Cluster cluster = cluster_of("A100-SXM4-80GB");
  cluster.groups.push_back(cluster_of("H100-SXM-80GB").groups[0]);
  EXPECT_EQ(execution_of(kGpt, cluster), Execution{});
}

// Dropout is drawn on stored scores: a job that says that attention is fused trains without.
TEST(Assumptions, WhatTheJobSaysHolds) {
  Job job = kGpt;
  job.execution.attention = Attention::fused;
  job.execution.issue_us = 3;
  const Execution execution = execution_of(job, cluster_of("A100-SXM4-80GB"));
  EXPECT_EQ(execution.attention, Attention::fused);
  EXPECT_FALSE(execution.dropout);
  EXPECT_EQ(execution.issue_us, 3);
}

TEST(Assumptions, AJobWithAssumptionsLeavesNothingOpen) {
  const Cluster cluster = cluster_of("A100-SXM4-80GB");
  Job job = kGpt;
  job.training.reduction = std::nullopt;
  const Job whole = with_assumptions(job, cluster);
  EXPECT_EQ(with_assumptions(whole, cluster_of("H100-SXM-80GB")), whole);
  EXPECT_EQ(execution_of(whole, cluster_of("H100-SXM-80GB")), execution_of(job, cluster));
  EXPECT_EQ(assumptions(whole, cluster), "");
}

TEST(Assumptions, CpuRanksSumInOneOrderAndAcceleratorsFast) {
  Job job = kGpt;
  job.training.reduction = std::nullopt;
  EXPECT_EQ(with_assumptions(job, cluster_of("cpu")).training.reduction, Reduction::ordered);
  EXPECT_EQ(with_assumptions(job, cluster_of("H100-SXM-80GB")).training.reduction, Reduction::fast);
}

}  // namespace
}  // namespace trireme
