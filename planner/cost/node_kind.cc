#include "planner/cost/node_kind.h"

#include <algorithm>

namespace trireme {
namespace {

StageCost seconds_of(const DeviceSpeed& speed, const PartKernels& kernels) {
  return {speed.seconds(kernels.forward), speed.seconds(kernels.input),
          speed.seconds(kernels.weight)};
}

}  // namespace

WorkShape work_shape(const Job& job, const Execution& execution, const Layout& layout,
                     Recompute recompute) {
  return {layout.micro_batch, layout.tensor, layout.sequence_parallel, recompute,
          job.training.dtype, execution,     layout.trains()};
}

StageCost plus(const StageCost& a, const StageCost& b) {
  return {a.forward + b.forward, a.input + b.input, a.weight + b.weight};
}

StageCost times(double factor, const StageCost& cost) {
  return {factor * cost.forward, factor * cost.input, factor * cost.weight};
}

double work_of(const Layout& layout, const StageCost& cost) {
  return layout.trains() ? cost.forward + cost.backward() : cost.forward;
}

StageCost PartSeconds::shown_communication(bool split) const {
  return {communication.forward, communication.input + (split ? more_when_split : 0),
          communication.weight};
}

StageCost PartSeconds::total(bool split) const {
  return plus(compute, shown_communication(split));
}

StageCost stage_seconds(const ModelSeconds& model, const Stage& stage, bool split) {
  return sum_of_stage(model, stage, [&](const PartSeconds& part) { return part.total(split); });
}

NodeKind::NodeKind(const Job& job, const Execution& execution, const Cluster& cluster, size_t group,
                   const Profile* profile)
    : job_(job),
      execution_(execution),
      nodes_(cluster.groups[group]),
      group_(group),
      links_(cluster) {
  if (profile == nullptr) return;
  if (!profile->accelerator && nodes_.device.is_cpu()) measured_.emplace(*profile, nodes_);
  if (profile->accelerator && profile->accelerator->device == nodes_.device.name) {
    accelerator_ = &*profile->accelerator;
  }
}

DeviceSpeed NodeKind::speed(int ranks) const {
  const int busy = std::min(nodes_.devices, ranks);
  const bool shared = nodes_.device.is_cpu() && nodes_.cores > 0 && busy > nodes_.cores;
  const double slowdown = shared ? static_cast<double>(busy) / nodes_.cores : 1;
  return device_speed(nodes_.device, job_.training.dtype, slowdown, execution_);
}

// Of two collectives a layer and direction, what no matrix product hides. In the backward the
// weight gradient can hide them, unless it is an op of its own; in pieces (overlap full), products
// hide all but the first of as many pieces as there are ranks.
StageCost NodeKind::exposed_communication(double once, Recompute recompute,
                                          const StageCost& compute, bool split) const {
  const double weight = split ? 0 : compute.weight;
  double forward = 2 * once, backward = 2 * once;
  if (execution_.overlap_tensor == TensorOverlap::backward) {
    backward = std::max(0.0, backward - weight);
  } else if (execution_.overlap_tensor == TensorOverlap::full) {
    constexpr double kFirstPiece = 0.25;
    forward = std::max(kFirstPiece * forward, forward - compute.forward);
    backward = std::max(kFirstPiece * backward, backward - compute.input - weight);
  }
  if (recompute == Recompute::full) backward += forward;
  return {forward, backward, 0};
}

double NodeKind::tensor_seconds(const Layout& layout) const {
  const double bytes = static_cast<double>(layout.micro_batch) * job_.model.sequence *
                       job_.model.hidden *
                       work_shape(job_, execution_, layout, Recompute::none).element_bytes();
  using Collective = AcceleratorProfile::Collective;
  if (accelerator_ != nullptr) {
    const auto kind =
        layout.sequence_parallel ? Collective::scatter_gather : Collective::all_reduce;
    if (const auto seconds = accelerator_->seconds(kind, layout.tensor, 1, bytes)) return *seconds;
  }
  const Path path = links_.tensor(group_, layout.tensor);
  return layout.sequence_parallel ? scatter_gather_seconds(layout.tensor, bytes, path)
                                  : all_reduce_seconds(layout.tensor, bytes, path);
}

const ModelSeconds& NodeKind::seconds(const Layout& layout, int ranks, Recompute recompute) {
  const auto key =
      std::make_tuple(layout.tensor, layout.micro_batch, std::min(nodes_.devices, ranks),
                      layout.sequence_parallel, recompute);
  const auto known = seconds_.find(key);
  if (known != seconds_.end()) return known->second;
  return seconds_.emplace(key, find_seconds(layout, ranks, recompute)).first->second;
}

ModelSeconds NodeKind::find_seconds(const Layout& layout, int ranks, Recompute recompute) const {
  ModelSeconds result;
  if (const auto parts = measured_ ? measured_->parts(layout) : std::nullopt) {
    result.layer.compute = parts->layer;
    result.embedding.compute = parts->embedding;
    result.head.compute = parts->head;
    return result;
  }
  const Model& model = job_.model;
  const WorkShape shape = work_shape(job_, execution_, layout, recompute);
  const DeviceSpeed device = speed(ranks);
  result.layer.compute = seconds_of(device, layer_kernels(model, shape));
  result.embedding.compute = seconds_of(device, embedding_kernels(model, shape));
  result.head.compute = seconds_of(device, head_kernels(model, shape));
  if (layout.tensor > 1) add_collectives(layout, recompute, result);
  replace_measured(layout, recompute, result);
  return result;
}

void NodeKind::add_collectives(const Layout& layout, Recompute recompute,
                               ModelSeconds& result) const {
  // Two all-reduces per layer and direction (Shoeybi et al. 2019, Megatron-LM, section 3); with
  // sequence parallelism each becomes a reduce-scatter and an all-gather of the same volume.
  const double once = tensor_seconds(layout);
  const StageCost& compute = result.layer.compute;
  result.layer.communication = exposed_communication(once, recompute, compute, false);
  result.layer.more_when_split = exposed_communication(once, recompute, compute, true).input -
                                 result.layer.communication.input;
  result.embedding.communication = {once, 0, 0};
  const double scalars = 3.0 * 4 * layout.micro_batch * job_.model.sequence;
  result.head.communication = {
      all_reduce_seconds(layout.tensor, scalars, links_.tensor(group_, layout.tensor)), once, 0};
}

// What a timer showed includes the collectives.
void NodeKind::replace_measured(const Layout& layout, Recompute recompute,
                                ModelSeconds& result) const {
  if (accelerator_ == nullptr) return;
  const auto parts =
      accelerator_->parts(layout.tensor, layout.micro_batch, layout.sequence_parallel, recompute);
  if (!parts) return;
  result.layer = {.compute = parts->layer};
  if (parts->embedding) result.embedding = {.compute = *parts->embedding};
  if (parts->head) result.head = {.compute = *parts->head};
}

}  // namespace trireme
