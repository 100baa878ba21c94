#include "planner/cost/step.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

StageCost plus(const StageCost& a, const StageCost& b) {
  return {a.forward + b.forward, a.input + b.input, a.weight + b.weight};
}

StageCost times(double factor, const StageCost& cost) {
  return {factor * cost.forward, factor * cost.input, factor * cost.weight};
}

double both_ways(const StageCost& cost) {
  return cost.forward + cost.backward();
}

// Evaluation ends with the forwards: no gradients, nothing to reduce or update.
bool trains(const Layout& layout) {
  return layout.schedule != "forward-only";
}

double work_of(const Layout& layout, const StageCost& cost) {
  return trains(layout) ? both_ways(cost) : cost.forward;
}

// One part summed over what a stage consists of.
template <class Pick>
StageCost stage_cost(const ModelSeconds& model, const Stage& stage, Pick pick) {
  StageCost cost = times(stage.layers, pick(model.layer));
  if (stage.embedding) cost = plus(cost, pick(model.embedding));
  if (stage.head) cost = plus(cost, pick(model.head));
  return cost;
}

StageCost compute_of(const PartSeconds& part) {
  return part.compute;
}
StageCost communication_of(const PartSeconds& part) {
  return part.communication;
}
StageCost total_of(const PartSeconds& part) {
  return part.total();
}

StageCost seconds_of(const DeviceSpeed& speed, const PartKernels& kernels) {
  return {speed.seconds(kernels.forward), speed.seconds(kernels.input),
          speed.seconds(kernels.weight)};
}

// What the predicted ops of a pipeline rank take for one micro-batch.
double predicted_work(const Prediction& prediction, const std::vector<Stage>& stages, int rank) {
  double seconds = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    if (stages[s].pipeline_rank != rank) continue;
    const StagePrediction& stage = prediction.stages[s];
    seconds += stage.forward_seconds + stage.input_seconds + stage.weight_seconds;
  }
  return seconds;
}

}  // namespace

StageCost PartSeconds::total() const {
  return plus(compute, communication);
}

StepModel::StepModel(const Job& job, const Cluster& cluster, size_t group, const Profile* profile)
    : job_(job), group_(cluster.groups[group]), links_(cluster, group) {
  if (profile != nullptr && group_.device.is_cpu()) measured_.emplace(*profile, group_);
}

std::string StepModel::basis(const Layout& layout) const {
  return measured_ ? measured_->basis(layout) : "the profile is for CPU nodes and was not used";
}

int StepModel::device_count() const {
  return static_cast<int>(group_.hosts.size()) * group_.devices;
}

WorkShape StepModel::shape_of(const Layout& layout) const {
  return {layout.micro_batch, layout.tensor,       layout.sequence_parallel,
          layout.recompute,   job_.training.dtype, job_.execution};
}

// CPU slots that outnumber their node's cores share them.
DeviceSpeed StepModel::speed_of(const Layout& layout) const {
  const int busy = std::min(group_.devices, layout.ranks());
  const bool shared = group_.device.is_cpu() && group_.cores > 0 && busy > group_.cores;
  const double slowdown = shared ? static_cast<double>(busy) / group_.cores : 1;
  return device_speed(group_.device, job_.training.dtype, slowdown, job_.execution.issue_us * 1e-6);
}

// Of two collectives a layer and direction, what no matrix product hides. In the backward the
// weight gradient can hide them; in pieces (overlap full), products hide all but the first of as
// many pieces as there are ranks.
StageCost StepModel::exposed_communication(double once, Recompute recompute,
                                           const StageCost& compute) const {
  double forward = 2 * once, backward = 2 * once;
  if (job_.execution.overlap_tensor == TensorOverlap::backward) {
    backward = std::max(0.0, backward - compute.weight);
  } else if (job_.execution.overlap_tensor == TensorOverlap::full) {
    constexpr double kFirstPiece = 0.25;
    forward = std::max(kFirstPiece * forward, forward - compute.forward);
    backward = std::max(kFirstPiece * backward, backward - compute.input - compute.weight);
  }
  if (recompute == Recompute::full) backward += forward;
  return {forward, backward, 0};
}

const ModelSeconds& StepModel::model_seconds(const Layout& layout) {
  const auto key =
      std::make_tuple(layout.tensor, layout.micro_batch, std::min(group_.devices, layout.ranks()),
                      layout.sequence_parallel, layout.recompute);
  if (const auto known = seconds_.find(key); known != seconds_.end()) return known->second;

  ModelSeconds result;
  if (const auto parts = measured_ ? measured_->parts(layout) : std::nullopt) {
    result.layer.compute = parts->layer;
    result.embedding.compute = parts->embedding;
    result.head.compute = parts->head;
    return seconds_.emplace(key, result).first->second;
  }
  const Model& model = job_.model;
  const WorkShape shape = shape_of(layout);
  const DeviceSpeed speed = speed_of(layout);
  result.layer.compute = seconds_of(speed, layer_kernels(model, shape));
  result.embedding.compute = seconds_of(speed, embedding_kernels(model, shape));
  result.head.compute = seconds_of(speed, head_kernels(model, shape));
  if (layout.tensor > 1) {
    // Two all-reduces per layer and direction (Shoeybi et al. 2019, Megatron-LM, section 3); with
    // sequence parallelism each becomes a reduce-scatter and an all-gather of the same volume.
    const double bytes = static_cast<double>(layout.micro_batch) * model.sequence * model.hidden *
                         shape.element_bytes();
    const double once = all_reduce_seconds(layout.tensor, bytes, links_.tensor(layout.tensor));
    result.layer.communication =
        exposed_communication(once, layout.recompute, result.layer.compute);
    result.embedding.communication = {once, 0, 0};
    const double scalars = 3.0 * 4 * layout.micro_batch * model.sequence;
    result.head.communication = {
        all_reduce_seconds(layout.tensor, scalars, links_.tensor(layout.tensor)), once, 0};
  }
  return seconds_.emplace(key, result).first->second;
}

const StepModel::LayoutPaths& StepModel::paths(const Layout& layout) {
  const auto key =
      std::make_tuple(layout.tensor, layout.data, layout.pipeline, layout.chunks > 1 ? 2 : 1);
  if (const auto known = paths_.find(key); known != paths_.end()) return known->second;
  LayoutPaths paths{links_.data(layout), links_.pipeline(layout), {0, 1e30}};
  if (layout.pipeline > 1) paths.ends = links_.ends(layout);
  return paths_.emplace(key, paths).first->second;
}

std::vector<Stage> StepModel::cut(const Layout& layout) {
  const std::vector<StagePlace> places = places_of(layout.schedule, layout.pipeline, layout.chunks);
  if (job_.pins.even_cut.value_or(false)) return even_cut(job_.model.layers, places);
  const ModelSeconds& model = model_seconds(layout);
  return cut_layers(job_.model.layers, places,
                    {work_of(layout, model.layer.total()), work_of(layout, model.embedding.total()),
                     work_of(layout, model.head.total())});
}

Costs StepModel::costs(const Layout& layout, const std::vector<Stage>& stages) {
  const ModelSeconds& model = model_seconds(layout);
  Costs costs;
  costs.stages.clear();
  for (const Stage& stage : stages) costs.stages.push_back(stage_cost(model, stage, total_of));
  if (layout.pipeline > 1 && measured(layout)) {
    measured_->add_messages(layout, stages, costs);
  } else if (layout.pipeline > 1) {
    costs.hop = message_seconds(message_bytes(layout), paths(layout).pipeline);
  }
  return costs;
}

double StepModel::message_bytes(const Layout& layout) const {
  return static_cast<double>(layout.micro_batch) * job_.model.sequence * job_.model.hidden *
         shape_of(layout).element_bytes() / (layout.sequence_parallel ? layout.tensor : 1);
}

double StepModel::quick_bound(const Layout& layout) {
  const ModelSeconds& model = model_seconds(layout);
  const double work = job_.model.layers * work_of(layout, model.layer.total()) +
                      work_of(layout, model.embedding.total()) +
                      work_of(layout, model.head.total());
  const double average = layout.micro_batches * work / layout.pipeline;
  if (!measured(layout)) return average;
  return std::max(average, measured_->average_bound(layout, average));
}

double StepModel::cut_bound(const Layout& layout, const std::vector<Stage>& stages) {
  const Costs step_costs = costs(layout, stages);
  const std::vector<double> reductions = reduction_seconds(layout, stages);
  // A rank's gradients of its last chunk to finish are there after all its work, and still have to
  // be reduced.
  double last_reduction = 0;
  std::vector<double> work(static_cast<size_t>(layout.pipeline), 0);
  std::vector<double> least(static_cast<size_t>(layout.pipeline), 1e30);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    work[rank] += layout.micro_batches * work_of(layout, step_costs.stages[s]);
    least[rank] =
        std::min(least[rank], reductions[s] - hidden_reduction(layout, stages[s], reductions[s]));
  }
  for (size_t rank = 0; rank < work.size(); ++rank) {
    last_reduction = std::max(last_reduction, work[rank] + least[rank]);
  }
  const double pipeline = schedule_bound(layout.schedule, layout.pipeline, layout.chunks,
                                         layout.micro_batches, step_costs);
  const double shared = measured(layout) ? measured_->work_bound(layout, work) : 0;
  return std::max({pipeline, last_reduction, shared}) + optimizer_seconds(layout, stages);
}

double StepModel::gradient_bytes() const {
  const bool fp32 =
      job_.training.dtype == Dtype::fp32 || job_.execution.gradient_dtype == Dtype::fp32;
  return fp32 ? 4 : 2;
}

// Gradients of one stage among the data replicas. With a sharded optimizer it is a reduce-scatter,
// half of an all-reduce, and an all-gather of the new weights, in the type of the products.
std::vector<double> StepModel::reduction_seconds(const Layout& layout,
                                                 const std::vector<Stage>& stages) {
  std::vector<double> seconds = stage_parameters(job_.model, layout, stages);
  if (measured(layout)) return std::vector<double>(seconds.size(), 0);  // part of the step's end
  const Path path = layout.data > 1 ? paths(layout).data : Path{};
  const double weight = job_.training.dtype == Dtype::fp32 ? 4 : 2;
  const double bytes =
      layout.optimizer_sharding > 0 ? (gradient_bytes() + weight) / 2 : gradient_bytes();
  for (double& value : seconds) {
    value = trains(layout) ? all_reduce_seconds(layout.data, bytes * value, path) : 0;
  }
  return seconds;
}

std::vector<double> StepModel::parameters_by_rank(const Layout& layout,
                                                  const std::vector<Stage>& stages) const {
  const std::vector<double> parameters = stage_parameters(job_.model, layout, stages);
  std::vector<double> of_rank(static_cast<size_t>(layout.pipeline), 0);
  for (size_t s = 0; s < stages.size(); ++s) {
    of_rank[static_cast<size_t>(stages[s].pipeline_rank)] += parameters[s];
  }
  return of_rank;
}

double StepModel::optimizer_seconds(const Layout& layout, const std::vector<Stage>& stages) const {
  if (!trains(layout)) return 0;
  const std::vector<double> of_rank = parameters_by_rank(layout, stages);
  if (measured(layout)) return measured_->end(layout, of_rank).total();
  // The norm reads the gradient and clipping reads and writes it (12 bytes); Adam reads weight,
  // gradient and two moments and writes three of them (28); bf16 weights are written (2).
  const double bytes = job_.training.dtype == Dtype::fp32 ? 40 : 42;
  const double most = *std::max_element(of_rank.begin(), of_rank.end());
  return most * bytes / speed_of(layout).bytes_per_s /
         (layout.optimizer_sharding > 0 ? layout.data : 1);
}

// What a stage's own last backward hides of its reduction: layers are reduced as their gradients
// come, so all but the last layer's share can be under way when the backward ends.
double StepModel::hidden_reduction(const Layout& layout, const Stage& stage, double seconds) {
  if (!job_.execution.overlap_gradients) return 0;
  const double layers = std::max(1, stage.layers);
  const double backward = stage_cost(model_seconds(layout), stage, total_of).backward();
  return std::min(seconds, backward) * (layers - 1) / layers;
}

// By pipeline rank: when its gradients are reduced, chunk after chunk as each gets its last
// gradient.
std::vector<double> StepModel::reductions_end(const Layout& layout,
                                              const std::vector<Stage>& stages,
                                              const Simulation& simulation) {
  const std::vector<double> reductions = reduction_seconds(layout, stages);
  using Queue = std::vector<std::pair<double, double>>;  // last gradient, time to reduce
  std::vector<Queue> queues(static_cast<size_t>(layout.pipeline));
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    const auto chunk = static_cast<size_t>(stages[s].chunk);
    const double ready = simulation.makespan - simulation.tail_slack[rank][chunk];
    queues[rank].emplace_back(ready,
                              reductions[s] - hidden_reduction(layout, stages[s], reductions[s]));
  }
  std::vector<double> ends;
  for (Queue& queue : queues) {
    std::sort(queue.begin(), queue.end());
    double now = 0;
    if (job_.execution.overlap_gradients) {
      for (const auto& [ready, seconds] : queue) now = std::max(now, ready) + seconds;
    } else {
      now = queue.back().first;
      for (const auto& [ready, seconds] : queue) now += seconds;
    }
    ends.push_back(now);
  }
  return ends;
}

// The two copies of a tied embedding agree on their gradient.
double StepModel::tied_reduction_seconds(const Layout& layout) {
  const bool together = places_of(layout.schedule, layout.pipeline, layout.chunks).back().rank == 0;
  if (!job_.model.tied_embeddings || together || !trains(layout)) return 0;
  const double table = static_cast<double>(largest_share(job_.model, layout.tensor).vocab) *
                       job_.model.hidden * gradient_bytes();
  return all_reduce_seconds(2, table, paths(layout).ends);
}

std::vector<double> StepModel::activation_bytes(const Layout& layout,
                                                const std::vector<Stage>& stages) const {
  std::vector<double> bytes;
  bytes.reserve(stages.size());
  for (const Stage& stage : stages) {
    bytes.push_back(
        stage_activation_bytes(job_.model, shape_of(layout), group_.device.is_cpu(), stage));
  }
  return bytes;
}

std::vector<MemoryParts> StepModel::memory(const Layout& layout, const std::vector<Stage>& stages,
                                           const Schedule& schedule) const {
  std::vector<MemoryParts> memory = resident_memory(job_, layout, stages, group_.device.is_cpu());
  const std::vector<double> held =
      peak_activation_bytes(schedule, activation_bytes(layout, stages));
  const double again = recompute_bytes(job_.model, shape_of(layout), group_.device.is_cpu());
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    memory[rank].activations = held[rank] + again;
  }
  return memory;
}

CutMemory StepModel::cut_memory(const Layout& layout, const std::vector<Stage>& stages) const {
  CutMemory cut;
  cut.resident = resident_memory(job_, layout, stages, group_.device.is_cpu());
  cut.least_activation.assign(cut.resident.size(), std::numeric_limits<double>::infinity());
  const std::vector<double> bytes = activation_bytes(layout, stages);
  for (size_t s = 0; s < bytes.size(); ++s) {
    double& of_rank = cut.least_activation[static_cast<size_t>(stages[s].pipeline_rank)];
    of_rank = std::min(of_rank, bytes[s]);
  }
  return cut;
}

std::vector<MemoryParts> StepModel::least_memory(const Layout& layout, const CutMemory& cut) const {
  std::vector<MemoryParts> memory = cut.resident;
  const std::vector<int> peaks =
      least_peak_activations(layout.schedule, layout.pipeline, layout.chunks, layout.micro_batches);
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    memory[rank].activations = cut.least_activation[rank] * peaks[rank];
  }
  return memory;
}

double StepModel::average_resident(const Layout& layout) const {
  Layout whole = layout;
  whole.pipeline = 1;
  const std::vector<Stage> stages = {
      {.layers = job_.model.layers, .embedding = true, .head = true}};
  const MemoryParts all = resident_memory(job_, whole, stages, group_.device.is_cpu()).front();
  return (all.parameters + all.gradients + all.optimizer) / layout.pipeline;
}

// The costs with what each op takes while others run on the same cores.
Costs StepModel::shared_costs(const Layout& layout, const std::vector<Stage>& stages,
                              const Schedule& schedule) {
  Costs costs = this->costs(layout, stages);
  if (!measured(layout)) return costs;
  const auto seconds = shared_op_seconds(schedule, costs, measured_->shared_cores(layout));
  std::vector<double> alone(stages.size(), 0), shared(stages.size(), 0);
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Op& op = schedule.ranks[rank][i];
      alone[static_cast<size_t>(op.stage)] += costs.of_stage(op.stage).of(op.kind);
      shared[static_cast<size_t>(op.stage)] += seconds[rank][i];
    }
  }
  costs.op_time = [seconds](int rank, size_t position) {
    return seconds[static_cast<size_t>(rank)][position];
  };
  // On average, for who does not ask op by op.
  for (size_t s = 0; s < stages.size(); ++s) {
    if (alone[s] > 0) costs.stages[s] = times(shared[s] / alone[s], costs.stages[s]);
  }
  return costs;
}

void StepModel::add_stages(const Costs& seconds, const Layout& layout,
                           const std::vector<Stage>& stages, Prediction& prediction) {
  const std::vector<double> bytes = activation_bytes(layout, stages);
  for (size_t s = 0; s < stages.size(); ++s) {
    const StageCost& cost = seconds.of_stage(static_cast<int>(s));
    prediction.stages.push_back({cost.forward, cost.input, cost.weight, bytes[s]});
  }
  prediction.hop_seconds = seconds.hop;
}

namespace {

// By pipeline rank: when it first holds the most that it ever holds.
std::vector<double> peak_times(const Simulation& simulation) {
  std::vector<double> times;
  for (const std::vector<MemoryStep>& held : simulation.memory) {
    const auto peak = std::max_element(
        held.begin(), held.end(), [](const auto& a, const auto& b) { return a.units < b.units; });
    times.push_back(peak == held.end() ? 0 : peak->time);
  }
  return times;
}

}  // namespace

// What the busiest pipeline rank spends its step on.
void StepModel::add_breakdown(const Layout& layout, const std::vector<Stage>& stages,
                              double makespan, Prediction& prediction) {
  const ModelSeconds& model = model_seconds(layout);
  const auto ranks = static_cast<size_t>(layout.pipeline);
  std::vector<StageCost> compute_by_rank(ranks, {0, 0, 0}), communication_by_rank = compute_by_rank;
  for (const Stage& stage : stages) {
    const auto rank = static_cast<size_t>(stage.pipeline_rank);
    compute_by_rank[rank] = plus(compute_by_rank[rank], stage_cost(model, stage, compute_of));
    communication_by_rank[rank] =
        plus(communication_by_rank[rank], stage_cost(model, stage, communication_of));
  }
  double most = -1, forward = 0, backward = 0, tensor = 0;
  int busiest = 0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    const StageCost& compute = compute_by_rank[rank];
    const StageCost& communication = communication_by_rank[rank];
    const double busy = work_of(layout, compute) + work_of(layout, communication);
    if (busy <= most) continue;
    most = busy;
    busiest = static_cast<int>(rank);
    forward = layout.micro_batches * compute.forward;
    backward = trains(layout) ? layout.micro_batches * compute.backward() : 0;
    tensor = layout.micro_batches * work_of(layout, communication);
  }
  double idle = makespan - layout.micro_batches * most;
  prediction.breakdown = {
      {"forward", forward}, {"backward", backward}, {"tensor_communication", tensor}};
  if (measured(layout)) {
    const double shared =
        layout.micro_batches * (predicted_work(prediction, stages, busiest) - most);
    prediction.breakdown.emplace_back("shared_cores", shared);
    idle -= shared;
  }
  prediction.breakdown.emplace_back("pipeline_idle", std::max(0.0, idle));
}

Prediction StepModel::predict(const Layout& layout, const std::vector<Stage>& stages,
                              const Schedule& schedule) {
  Costs seconds = shared_costs(layout, stages, schedule);
  seconds.memory.clear();
  for (const double bytes : activation_bytes(layout, stages)) {
    seconds.memory.push_back({bytes, bytes});
  }
  const Simulation simulation = simulate(schedule, seconds);
  const std::vector<double> ends = reductions_end(layout, stages, simulation);
  const double reduced = std::max(simulation.makespan, *std::max_element(ends.begin(), ends.end()));
  const double tied = tied_reduction_seconds(layout);
  const double agreed = std::max(reduced, std::max(ends.front(), ends.back()) + tied);
  const double optimizer = optimizer_seconds(layout, stages);

  Prediction prediction;
  prediction.step_seconds = agreed + optimizer;
  const double tokens = static_cast<double>(job_.training.global_batch) * job_.model.sequence;
  prediction.tokens_per_second = tokens / prediction.step_seconds;
  const double per_device = prediction.tokens_per_second / layout.ranks();
  const double model_rate = per_device * model_flops_per_token(job_.model);
  prediction.model_tflops_per_device = model_rate / 1e12;
  prediction.hardware_tflops_per_device =
      per_device * hardware_flops_per_token(job_.model, layout.recompute) / 1e12;
  prediction.mfu = model_rate / peak_flops(group_.device, job_.training.dtype);
  prediction.bubble_fraction = simulation.bubble_fraction;
  for (const MemoryParts& rank : memory(layout, stages, schedule)) {
    prediction.memory_bytes_per_pipeline_rank.push_back(rank.total());
  }
  prediction.peak_seconds_per_pipeline_rank = peak_times(simulation);
  prediction.traffic = traffic(layout, stages);
  add_stages(seconds, layout, stages, prediction);
  add_breakdown(layout, stages, simulation.makespan, prediction);
  const double exchange = measured(layout) && trains(layout)
                              ? measured_->end(layout, parameters_by_rank(layout, stages)).exchange
                              : 0;
  prediction.breakdown.emplace_back("data_reduction", reduced - simulation.makespan + exchange);
  prediction.breakdown.emplace_back("tied_embeddings", agreed - reduced);
  prediction.breakdown.emplace_back("optimizer", optimizer - exchange);
  return prediction;
}

}  // namespace trireme
