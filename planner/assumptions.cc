#include "planner/assumptions.h"

#include <fmt/format.h>

#include <algorithm>

namespace trireme {
namespace {

constexpr int kFlashAttention = 2022;
// Stored scores grow with the square of it; no published run with longer ones stored them.
constexpr int kLongestStored = 2048;

// A program runs alike on all of a cluster's devices, so the newest decides.
bool of_before_flash_attention(const Cluster& cluster) {
  return std::all_of(cluster.groups.begin(), cluster.groups.end(), [](const NodeGroup& nodes) {
    return nodes.device.year > 0 && nodes.device.year < kFlashAttention;
  });
}

Execution usual_execution(const Job& job, const Cluster& cluster) {
  Execution usual;
  const bool old = of_before_flash_attention(cluster);
  const bool gpt = job.model.family == Family::gpt2;
  if (!old) return usual;
  if (gpt && job.model.sequence <= kLongestStored) usual.attention = Attention::unfused;
  usual.dropout = job.execution.attention.value_or(usual.attention) == Attention::unfused;
  usual.fused_elementwise = gpt;
  usual.gradient_dtype = Dtype::bf16;
  usual.overlap_gradients = usual.overlap_pipeline = false;
  usual.split_messages = true;
  usual.overlap_tensor = TensorOverlap::none;
  usual.issue_us = 46;
  return usual;
}

}  // namespace

Execution execution_of(const Job& job, const Cluster& cluster) {
  const ExecutionPins& said = job.execution;
  Execution execution = usual_execution(job, cluster);
  execution.attention = said.attention.value_or(execution.attention);
  execution.dropout = said.dropout.value_or(execution.dropout);
  execution.fused_softmax = said.fused_softmax.value_or(execution.fused_softmax);
  execution.fused_elementwise = said.fused_elementwise.value_or(execution.fused_elementwise);
  execution.gradient_dtype = said.gradient_dtype.value_or(execution.gradient_dtype);
  execution.overlap_gradients = said.overlap_gradients.value_or(execution.overlap_gradients);
  execution.overlap_pipeline = said.overlap_pipeline.value_or(execution.overlap_pipeline);
  execution.split_messages = said.split_messages.value_or(execution.split_messages);
  execution.overlap_tensor = said.overlap_tensor.value_or(execution.overlap_tensor);
  execution.sharding_ranks = said.sharding_ranks.value_or(execution.sharding_ranks);
  execution.sharding_buckets = said.sharding_buckets.value_or(execution.sharding_buckets);
  execution.issue_ahead = said.issue_ahead.value_or(execution.issue_ahead);
  execution.issue_us = said.issue_us.value_or(execution.issue_us);
  return execution;
}

Job with_assumptions(Job job, const Cluster& cluster) {
  const Execution execution = execution_of(job, cluster);
  job.execution = {.attention = execution.attention,
                   .dropout = execution.dropout,
                   .fused_softmax = execution.fused_softmax,
                   .fused_elementwise = execution.fused_elementwise,
                   .gradient_dtype = execution.gradient_dtype,
                   .overlap_gradients = execution.overlap_gradients,
                   .overlap_pipeline = execution.overlap_pipeline,
                   .split_messages = execution.split_messages,
                   .overlap_tensor = execution.overlap_tensor,
                   .sharding_ranks = execution.sharding_ranks,
                   .sharding_buckets = execution.sharding_buckets,
                   .issue_us = execution.issue_us,
                   .issue_ahead = execution.issue_ahead};
  const bool cpu = std::all_of(cluster.groups.begin(), cluster.groups.end(),
                               [](const NodeGroup& nodes) { return nodes.device.is_cpu(); });
  job.training.reduction = job.training.reduction_on(cpu);
  return job;
}

std::string assumptions(const Job& job, const Cluster& cluster) {
  const bool all_said = with_assumptions(job, cluster).execution == job.execution;
  if (all_said || !of_before_flash_attention(cluster)) return "";
  const bool unfused = execution_of(job, cluster).attention == Attention::unfused;
  return std::string("Assumed is a program of these devices' years, with ") +
         (unfused ? "unfused attention and " : "") +
         "collectives and sends in the open; [execution] in the job says otherwise.";
}

std::vector<std::string> device_notes(const Job& job, const Cluster& cluster,
                                      const std::vector<size_t>& groups) {
  std::vector<std::string> notes;
  for (const size_t group : groups) {
    const Device& device = cluster.groups[group].device;
    if (device.is_cpu()) continue;
    if (job.training.dtype == Dtype::bf16 && device.bf16_flops == 0) {
      notes.push_back(fmt::format("{} has no bf16; its products are taken at the rate of {}.",
                                  device.name, device.fp16_flops > 0 ? "fp16" : "fp32"));
    }
    const Device* known = find_device(device.name);
    Device same = known == nullptr ? device : *known;
    same.memory_bytes = device.memory_bytes;
    if (same != device) {
      notes.push_back(
          fmt::format("the cluster file has figures of its own for {}; the accuracy is "
                      "that of the catalogue's.",
                      device.name));
    }
  }
  return notes;
}

}  // namespace trireme
