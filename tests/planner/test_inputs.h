#pragma once

#include <memory>
#include <utility>

#include "planner/plan/job.h"
#include "planner/plan/schedule.h"
#include "topology/cluster.h"

namespace trireme {

inline Model gpt2_model(int layers, int hidden, int heads, int vocab, int sequence) {
  Model model;
  model.family = Family::gpt2;
  model.layers = layers;
  model.hidden = hidden;
  model.heads = model.kv_heads = heads;
  model.head_dim = hidden / heads;
  model.ffn_hidden = 4 * hidden;
  model.vocab = vocab;
  model.sequence = model.positions = sequence;
  model.tied_embeddings = true;
  return model;
}

inline Job gpt2_job(const Model& model, int global_batch, Dtype dtype = Dtype::fp32) {
  Job job;
  job.name = "test";
  job.model = model;
  job.training.global_batch = global_batch;
  job.training.dtype = dtype;
  job.training.reduction = Reduction::fast;
  return job;
}

// Nodes of round figures: 100 TFLOP/s, 1 TB/s memory, 100 GB/s links, four NICs of 10 GB/s, no
// latency.
inline Cluster round_cluster(int nodes, int devices, double memory_gb) {
  NodeGroup group;
  for (int n = 0; n < nodes; ++n) group.hosts.push_back("n" + std::to_string(n));
  group.device = {.name = "X",
                  .memory_bytes = memory_gb * 1e9,
                  .memory_bytes_per_s = 1e12,
                  .fp32_flops = 1e14,
                  .bf16_flops = 1e14,
                  .link_bytes_per_s = 1e11,
                  .link_efficiency = 1};
  group.devices = devices;
  group.link = NodeLink::nvlink;
  group.link_bytes_per_s = 1e11;
  group.nics = 4;
  group.nic_bytes_per_s = 1e10;
  Cluster cluster{"round", {group}, {}};
  cluster.fabric.kind = FabricKind::flat;
  return cluster;
}

// Two nodes of one kind and two, called fast, whose devices do so many times as much.
inline Cluster two_kinds(double speed) {
  Cluster cluster = round_cluster(2, 4, 80);
  cluster.groups.push_back(cluster.groups[0]);
  cluster.groups[1].hosts = {"fast0", "fast1"};
  cluster.groups[1].device.name = "Y";
  cluster.groups[1].device.fp32_flops *= speed;
  cluster.groups[1].device.memory_bytes_per_s *= speed;
  return cluster;
}

inline std::shared_ptr<const Schedule> shared(Schedule schedule) {
  return std::make_shared<const Schedule>(std::move(schedule));
}

}  // namespace trireme
