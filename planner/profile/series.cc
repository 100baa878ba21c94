#include "planner/profile/series.h"

#include <algorithm>
#include <optional>
#include <set>

#include "planner/cost/kernels.h"
#include "planner/profile/trace_sample.h"

namespace trireme {
namespace {

// Micro-batches of a step: the first of them find cold caches, and from three on the runtime packs
// weights as it does in longer steps.
int micro_batches_for(int samples) {
  return std::clamp(16 / samples, 3, 8);
}

// Deeper models are measured at this depth: more layers tell no more about one.
constexpr int kDeepest = 8;
// Steps that count: samples enough to see what delays some ops and not others.
int steps_for(int samples_of_a_step) {
  constexpr int kSamples = 96;
  return std::max(3, kSamples / samples_of_a_step);
}

struct Shape {
  int tensor = 1, pipeline = 1, data = 1, micro_batch = 1, layers = 1;
};

Job pinned_job(const Job& job, const Shape& shape) {
  Job run = job;
  run.name = job.name + "-profile";
  run.weights = "";  // of another depth
  run.model.layers = shape.layers;
  const int samples = shape.micro_batch * micro_batches_for(shape.micro_batch);
  run.training.global_batch = shape.data * samples;
  run.training.steps = kWarmUpSteps + steps_for(samples);
  run.training.warmup_steps = 0;
  run.checkpoint = {};
  run.pins = {};
  run.pins.tensor = shape.tensor;
  run.pins.pipeline = shape.pipeline;
  run.pins.data = shape.data;
  run.pins.chunks = 1;
  run.pins.micro_batch = shape.micro_batch;
  run.pins.schedule = "zb-h1";  // splits every backward
  return run;
}

std::set<int> micro_batches(const Job& job, ProfileExtent extent) {
  const std::optional<int>& pinned = job.pins.micro_batch;
  if (pinned && extent == ProfileExtent::pinned) return {*pinned};
  std::set<int> sizes;
  for (const int size : {1, 4, 16}) {
    if (size <= job.training.global_batch) sizes.insert(size);
  }
  if (pinned) sizes.insert(*pinned);
  return sizes;
}

std::set<int> tensor_degrees(const Job& job, const NodeGroup& nodes, ProfileExtent extent) {
  const std::optional<int>& pinned = job.pins.tensor;
  if (pinned && extent == ProfileExtent::pinned) return {1, *pinned};
  std::set<int> degrees;
  for (int tensor = 1; tensor <= std::min(nodes.devices, job.model.kv_heads); tensor *= 2) {
    degrees.insert(tensor);
  }
  return degrees;
}

// Of a rank, as the extent asks for.
bool measured_with(int threads, const Job& job, const Profile& machine, ProfileExtent extent) {
  const Pins& pins = job.pins;
  if (extent == ProfileExtent::whole || !pins.tensor || !pins.pipeline || !pins.data) return true;
  return threads == machine.threads(*pins.tensor * *pins.pipeline * *pins.data);
}

}  // namespace

ProfileSeries profile_series(const Job& job, const NodeGroup& nodes, ProfileExtent extent) {
  ProfileSeries series;
  Profile machine;
  machine.cores = nodes.cores > 0 ? nodes.cores : nodes.devices;
  const int deep = std::clamp(job.model.layers, 2, kDeepest), shallow = std::max(1, deep / 4);
  const auto add = [&](std::vector<ProfileRun>& runs, const Shape& shape) {
    const int ranks = shape.tensor * shape.pipeline * shape.data;
    runs.push_back({pinned_job(job, shape), machine.threads(ranks)});
  };
  const std::set<int> sizes = micro_batches(job, extent);
  for (const int tensor : tensor_degrees(job, nodes, extent)) {
    std::set<int> known;
    for (int data = 1; tensor * data <= nodes.devices; data *= 2) {
      const int threads = machine.threads(tensor * data);
      if (!measured_with(threads, job, machine, extent) || !known.insert(threads).second) continue;
      for (const int micro_batch : sizes) {
        for (const int layers : {shallow, deep}) {
          add(series.ops, {tensor, 1, data, micro_batch, layers});
        }
      }
    }
  }
  if (nodes.devices < 2) return series;
  for (const int micro_batch : std::set<int>{*sizes.begin(), *sizes.rbegin()}) {
    add(series.messages, {1, 2, 1, micro_batch, deep});
  }
  return series;
}

HeadShare head_share(const Job& job, const NodeGroup& nodes) {
  const DeviceSpeed speed = device_speed(nodes.device, job.training.dtype, 1, {.issue_us = 0});
  return [speed, job](int tensor, int micro_batch) {
    WorkShape shape;
    shape.micro_batch = micro_batch;
    shape.tensor = tensor;
    shape.dtype = job.training.dtype;
    const PartKernels head = head_kernels(job.model, shape);
    const PartKernels embedding = embedding_kernels(job.model, shape);
    const auto share = [&](const std::vector<Kernel>& a, const std::vector<Kernel>& b) {
      const double of_head = speed.seconds(a), both = of_head + speed.seconds(b);
      return both > 0 ? of_head / both : 1;
    };
    return StageCost{share(head.forward, embedding.forward), share(head.input, embedding.input),
                     share(head.weight, embedding.weight)};
  };
}

}  // namespace trireme
