#pragma once

#include <initializer_list>
#include <random>
#include <string>
#include <utility>

#include "tests/planner/test_inputs.h"

namespace trireme {

// A space small enough to try everything: a model, a batch, one or two kinds of nodes.
inline std::pair<Job, Cluster> random_space(std::mt19937& random) {
  const auto pick = [&](std::initializer_list<int> values) {
    return values.begin()[random() % values.size()];
  };
  Job job = gpt2_job(gpt2_model(pick({2, 5, 8, 12}), pick({256, 1024, 2048}), pick({2, 8, 16}),
                                pick({1000, 50000}), 512),
                     pick({1, 6, 8, 16}), pick({0, 1}) == 0 ? Dtype::fp32 : Dtype::bf16);
  if (pick({0, 0, 1}) == 1) job.execution.attention = Attention::unfused;
  if (pick({0, 0, 1}) == 1) job.execution.overlap_gradients = false;
  if (pick({0, 0, 1}) == 1) job.execution.overlap_pipeline = false;
  if (pick({0, 0, 1}) == 1) job.model.tied_embeddings = false;
  Cluster cluster = round_cluster(pick({1, 2, 3}), pick({1, 2, 4}), pick({2, 3, 4, 20, 80}));
  cluster.fabric.latency_s = pick({0, 0, 1}) * 1e-3;
  if (pick({0, 1}) == 1) cluster.groups.front().nics = 1;
  if (pick({0, 0, 0, 1}) == 1) cluster.groups.front().nic_bytes_per_s /= 100;
  if (pick({0, 0, 0, 1}) == 1) cluster.fabric.switch_reduction = true;
  if (pick({0, 1}) == 1) {
    cluster.fabric.kind = FabricKind::tree;
    cluster.fabric.spine_latency_s = 2 * cluster.fabric.latency_s;
    cluster.fabric.leaf_nodes = 2;
    cluster.fabric.oversubscription = 4;
  }
  if (pick({0, 0, 1}) == 1) {
    cluster.groups.push_back(round_cluster(pick({1, 2}), 2, pick({4, 80})).groups.front());
    for (std::string& host : cluster.groups.back().hosts) host += "m";
    cluster.groups.back().device.bf16_flops *= 3;
  } else if (cluster.groups.front().devices == 2) {
    cluster.groups.front().hosts = {"n0", "n1", "n2", "n3"};  // two leaves where there are any
  }
  if (cluster.device_count() >= 8) job.model.layers = std::min(job.model.layers, 5);
  return {job, cluster};
}

}  // namespace trireme
