#include "planner/cost/step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "planner/assumptions.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

bool any_op(const Schedule& schedule, OpKind kind) {
  const auto has = [kind](const std::vector<Op>& program) {
    return std::any_of(program.begin(), program.end(),
                       [kind](const Op& op) { return op.kind == kind; });
  };
  return std::any_of(schedule.ranks.begin(), schedule.ranks.end(), has);
}

// Where a rank waits until its message has arrived, the op that makes it takes that much longer.
void block_on_sends(const std::vector<Stage>& stages, Costs& costs) {
  const double message = costs.transfer + costs.hop;
  for (size_t s = 1; s < stages.size(); ++s) {
    if (stages[s - 1].pipeline_rank == stages[s].pipeline_rank) continue;
    costs.stages[s - 1].forward += message;
    costs.stages[s].input += message;
  }
  costs.transfer = costs.hop = 0;
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

StepModel::StepModel(const Job& job, const Cluster& cluster, const Profile* profile,
                     const Schedule* own, std::shared_ptr<KnownTimings> timings)
    : job_(job),
      execution_(execution_of(job, cluster)),
      cluster_(cluster),
      links_(cluster),
      own_(own),
      own_splits_(own != nullptr && any_op(*own, OpKind::backward_weight)),
      timings_(std::move(timings)) {
  kinds_.reserve(cluster.groups.size());
  for (size_t g = 0; g < cluster.groups.size(); ++g) {
    kinds_.emplace_back(job, execution_, cluster, g, profile);
  }
}

std::string StepModel::basis(const PlacedLayout& layout) const {
  const NodeKind& kind = kinds_[layout.placement.runs.front().group];
  if (kind.measured()) return kind.measured()->basis(layout);
  const AcceleratorProfile* profile = kind.accelerator();
  if (profile == nullptr) return "the profile is for other devices and was not used";
  const bool known =
      profile->parts(layout.tensor, layout.micro_batch, layout.sequence_parallel, layout.recompute)
          .has_value();
  return known ? "layer times are those of the profile"
               : "the profile has no layer times for this tensor degree and these options: they "
                 "are those of the cluster file and may not compare with measured ones";
}

const MeasuredStep* StepModel::measured(const PlacedLayout& layout) const {
  if (layout.placement.runs.size() > 1) return nullptr;
  const auto& measured = kinds_[layout.placement.runs.front().group].measured();
  return measured && measured->parts(layout) ? &*measured : nullptr;
}

bool StepModel::on_cpu(const PlacedLayout& layout) const {
  return kinds_[layout.placement.runs.front().group].nodes().device.is_cpu();
}

const ModelSeconds& StepModel::run_seconds(const PlacedLayout& layout, const Run& run,
                                           Recompute recompute) {
  return kinds_[run.group].seconds(layout, run.pipeline_ranks * layout.tensor * layout.data,
                                   recompute);
}

// How much longer the slowest of a layout's devices takes than the slowest of a node, which is what
// sustained figures are of. Of n normal variates the largest is expected sqrt(2 ln n) standard
// deviations above their mean (David and Nagaraja 2003, Order Statistics, section 10.5).
double StepModel::pace(const PlacedLayout& layout) const {
  const NodeGroup& nodes = kinds_[layout.placement.runs.front().group].nodes();
  if (layout.ranks() <= nodes.devices) return 1;
  const auto largest_of = [](int n) { return std::sqrt(2 * std::log(n)); };
  return 1 + nodes.device.speed_spread * (largest_of(layout.ranks()) - largest_of(nodes.devices));
}

const ModelSeconds& StepModel::model_seconds(const PlacedLayout& layout, int pipeline_rank) {
  return run_seconds(layout, layout.run_of(pipeline_rank), layout.recompute_on(pipeline_rank));
}

double StepModel::device_memory(const PlacedLayout& layout, int pipeline_rank) const {
  return kinds_[layout.run_of(pipeline_rank).group].nodes().device.memory_bytes;
}

double StepModel::average_device_memory(const PlacedLayout& layout) const {
  double sum = 0;
  for (const Run& run : layout.placement.runs) {
    sum += run.pipeline_ranks * kinds_[run.group].nodes().device.memory_bytes;
  }
  return sum / layout.pipeline;
}

namespace {

// Tensor, data, and where they sit.
auto ranks_of(const PlacedLayout& layout) {
  const Placement& at = layout.placement;
  return std::tie(layout.tensor, layout.data, at.near, at.runs, at.sets, at.set);
}

}  // namespace

const Path& StepModel::data_path(const PlacedLayout& layout) {
  const auto known = data_paths_.find(ranks_of(layout));
  if (known != data_paths_.end()) return known->second;
  return data_paths_.emplace(ranks_of(layout), links_.data(layout)).first->second;
}

const StepModel::PipelinePaths& StepModel::pipeline_paths(const PlacedLayout& layout) {
  auto& paths = pipeline_paths_[layout.chunks > 1 ? 1 : 0];
  const auto known = paths.find(ranks_of(layout));
  if (known != paths.end()) return known->second;
  return paths
      .emplace(ranks_of(layout), PipelinePaths{links_.pipeline(layout), links_.ends(layout)})
      .first->second;
}

Costs StepModel::costs(const PlacedLayout& layout, const std::vector<Stage>& stages) {
  Costs costs;
  std::vector<const ModelSeconds*> of_rank;
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    of_rank.insert(of_rank.end(), static_cast<size_t>(ranks), &model);
  });
  costs.stages.clear();
  const double pace = this->pace(layout);
  const bool split = splits(layout);
  for (const Stage& stage : stages) {
    const ModelSeconds& model = *of_rank[static_cast<size_t>(stage.pipeline_rank)];
    costs.stages.push_back(times(pace, stage_seconds(model, stage, split)));
  }
  add_messages(layout, stages, costs);
  return costs;
}

LinkCost StepModel::message_on(const PlacedLayout& layout, const Path& path) {
  return {path.latency_s + gather_seconds(layout), message_bytes(layout) / path.bytes_per_s};
}

void StepModel::add_messages(const PlacedLayout& layout, const std::vector<Stage>& stages,
                             Costs& costs) {
  if (layout.pipeline == 1) return;
  if (const MeasuredStep* profile = measured(layout)) {
    profile->add_messages(layout, stages, costs);
    return;
  }
  const LinkCost message = message_on(layout, pipeline_paths(layout).neighbours);
  costs.transfer = message.transfer;
  costs.hop = message.hop;
  if (!execution_.overlap_pipeline) block_on_sends(stages, costs);
}

double StepModel::message_bytes(const PlacedLayout& layout) const {
  return static_cast<double>(layout.micro_batch) * job_.model.sequence * job_.model.hidden *
         work_shape(job_, execution_, layout, Recompute::none).element_bytes() /
         (layout.sequence_parallel || execution_.split_messages ? layout.tensor : 1);
}

// With sequence parallelism what was sent in shares is wanted in shares.
double StepModel::gather_seconds(const PlacedLayout& layout) {
  if (!execution_.split_messages || layout.sequence_parallel || layout.tensor == 1) return 0;
  double most = 0;
  for (const Run& run : layout.placement.runs) {
    // A gather is half of the scattering and gathering.
    const double both = scatter_gather_seconds(layout.tensor, layout.tensor * message_bytes(layout),
                                               links_.tensor(run.group, layout.tensor));
    most = std::max(most, both / 2);
  }
  return most;
}

double StepModel::layer_seconds(const Layout& layout, size_t group) {
  const int ranks = layout.tensor * layout.data;
  return work_of(layout, kinds_[group].seconds(layout, ranks, layout.recompute).layer.total());
}

std::vector<double> StepModel::parameters_by_rank(const PlacedLayout& layout,
                                                  const std::vector<Stage>& stages) const {
  const std::vector<double> parameters = stage_parameters(job_.model, layout, stages);
  std::vector<double> of_rank(static_cast<size_t>(layout.pipeline), 0);
  for (size_t s = 0; s < stages.size(); ++s) {
    of_rank[static_cast<size_t>(stages[s].pipeline_rank)] += parameters[s];
  }
  return of_rank;
}

double StepModel::optimizer_seconds(const PlacedLayout& layout,
                                    const std::vector<Stage>& stages) const {
  if (!layout.trains()) return 0;
  const std::vector<double> of_rank = parameters_by_rank(layout, stages);
  if (const MeasuredStep* profile = measured(layout)) return profile->end(layout, of_rank).total();
  // The norm reads the gradient and clipping reads and writes it (12 bytes); Adam reads weight,
  // gradient and two moments and writes three of them (28); bf16 weights are written (2).
  const double bytes = job_.training.dtype == Dtype::fp32 ? 40 : 42;
  double most = 0;
  for (int p = 0; p < layout.pipeline; ++p) {
    const Run& run = layout.run_of(p);
    const DeviceSpeed speed =
        kinds_[run.group].speed(run.pipeline_ranks * layout.tensor * layout.data);
    most = std::max(most, of_rank[static_cast<size_t>(p)] * bytes / speed.bytes_per_s);
  }
  return most / optimizer_shards(execution_, layout);
}

// Whole ones. Of most pipelines nearly all stages are alike.
std::vector<double> StepModel::activation_bytes(const PlacedLayout& layout,
                                                const std::vector<Stage>& stages) const {
  std::vector<double> bytes;
  bytes.reserve(stages.size());
  for (size_t s = 0; s < stages.size(); ++s) {
    const Recompute recompute = layout.recompute_on(stages[s].pipeline_rank);
    const bool as_before = s > 0 && stages[s].layers == stages[s - 1].layers && !stages[s].head &&
                           recompute == layout.recompute_on(stages[s - 1].pipeline_rank);
    if (as_before) {
      bytes.push_back(bytes.back());
      continue;
    }
    const WorkShape shape = work_shape(job_, execution_, layout, recompute);
    const double exact = stage_activation_bytes(job_.model, shape, on_cpu(layout), stages[s]);
    bytes.push_back(std::round(exact));
  }
  return bytes;
}

std::vector<MemoryParts> StepModel::memory(const PlacedLayout& layout,
                                           const std::vector<Stage>& stages,
                                           const Schedule& schedule) const {
  std::vector<MemoryParts> memory =
      resident_memory(job_, execution_, layout, stages, on_cpu(layout));
  const std::vector<double> held =
      peak_activation_bytes(schedule, activation_bytes(layout, stages));
  const std::vector<double> passing = passing_by_rank(layout, stages);
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    memory[rank].activations = held[rank] + passing[rank];
  }
  return memory;
}

std::vector<double> StepModel::passing_by_rank(const PlacedLayout& layout,
                                               const std::vector<Stage>& stages) const {
  const auto passing = [&](Recompute recompute, bool head) {
    return passing_bytes(job_.model, work_shape(job_, execution_, layout, recompute),
                         on_cpu(layout), head);
  };
  const int with_head = stages.back().pipeline_rank;
  const double first = passing(layout.recompute, false), later = passing(Recompute::none, false);
  std::vector<double> bytes;
  for (int rank = 0; rank < layout.pipeline; ++rank) {
    bytes.push_back(layout.recompute_on(rank) == layout.recompute ? first : later);
  }
  bytes[static_cast<size_t>(with_head)] = passing(layout.recompute_on(with_head), true);
  return bytes;
}

CutMemory StepModel::cut_memory(const PlacedLayout& layout,
                                const std::vector<Stage>& stages) const {
  CutMemory cut;
  cut.resident = resident_memory(job_, execution_, layout, stages, on_cpu(layout));
  cut.passing = passing_by_rank(layout, stages);
  for (size_t rank = 0; rank < cut.resident.size(); ++rank) {
    const double there = device_memory(layout, static_cast<int>(rank));
    cut.room.push_back(there - cut.resident[rank].total() - cut.passing[rank]);
  }
  cut.least_activation.assign(cut.resident.size(), std::numeric_limits<double>::infinity());
  const std::vector<double> bytes = activation_bytes(layout, stages);
  for (size_t s = 0; s < bytes.size(); ++s) {
    double& of_rank = cut.least_activation[static_cast<size_t>(stages[s].pipeline_rank)];
    of_rank = std::min(of_rank, bytes[s]);
  }
  return cut;
}

std::vector<MemoryParts> StepModel::least_memory(const PlacedLayout& layout,
                                                 const CutMemory& cut) const {
  std::vector<MemoryParts> memory = cut.resident;
  const std::vector<int> peaks =
      least_peak_activations(layout.schedule, layout.pipeline, layout.chunks, layout.micro_batches);
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    memory[rank].activations = cut.least_activation[rank] * peaks[rank] + cut.passing[rank];
  }
  return memory;
}

double StepModel::lacks_at_least(const Layout& layout, const CutMemory& cut) const {
  const std::vector<int> peaks =
      least_peak_activations(layout.schedule, layout.pipeline, layout.chunks, layout.micro_batches);
  double missing = 0;
  for (size_t rank = 0; rank < peaks.size(); ++rank) {
    missing = std::max(missing, cut.least_activation[rank] * peaks[rank] - cut.room[rank]);
  }
  return missing;
}

double StepModel::average_resident(const PlacedLayout& layout) {
  return resident(layout).all / layout.pipeline;
}

const StepModel::Resident& StepModel::resident(const PlacedLayout& layout) {
  const bool cpu = on_cpu(layout);
  const auto key =
      std::make_tuple(layout.tensor, optimizer_shards(execution_, layout),
                      gradient_buffers(job_.training.reduction_on(cpu), layout.micro_batches));
  const auto known = residents_.find(key);
  if (known != residents_.end()) return known->second;
  PlacedLayout whole = layout;
  whole.pipeline = 1;
  double reserve = 0;
  const auto bytes = [&](int layers) {
    const std::vector<Stage> stages = {{.layers = layers, .embedding = true, .head = true}};
    const MemoryParts parts = resident_memory(job_, execution_, whole, stages, cpu).front();
    reserve = parts.reserve;
    return parts.parameters + parts.gradients + parts.optimizer;
  };
  const double all = bytes(job_.model.layers), layer = (all - bytes(0)) / job_.model.layers;
  return residents_.emplace(key, Resident{all, layer, reserve}).first->second;
}

// The costs with what each op takes while others run on the same cores.
Costs StepModel::shared_costs(const PlacedLayout& layout, const std::vector<Stage>& stages,
                              const Schedule& schedule) {
  Costs costs = this->costs(layout, stages);
  const MeasuredStep* profile = measured(layout);
  if (profile == nullptr) return costs;
  const auto seconds = shared_op_seconds(schedule, costs, profile->shared_cores(layout));
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

void StepModel::add_stages(const Costs& seconds, const PlacedLayout& layout,
                           const std::vector<Stage>& stages, Prediction& prediction) {
  const std::vector<double> bytes = activation_bytes(layout, stages);
  for (size_t s = 0; s < stages.size(); ++s) {
    const StageCost& cost = seconds.of_stage(static_cast<int>(s));
    prediction.stages.push_back({cost.forward, cost.input, cost.weight, bytes[s]});
  }
  prediction.transfer_seconds = seconds.transfer;
  prediction.hop_seconds = seconds.hop;
}

// What the busiest pipeline rank spends its step on.
void StepModel::add_breakdown(const PlacedLayout& layout, const std::vector<Stage>& stages,
                              double makespan, Prediction& prediction) {
  const auto ranks = static_cast<size_t>(layout.pipeline);
  std::vector<StageCost> compute_by_rank(ranks, {0, 0, 0}), communication_by_rank = compute_by_rank;
  const double pace = this->pace(layout);
  const auto compute_of = [](const PartSeconds& part) { return part.compute; };
  const auto communication_of = [split = splits(layout)](const PartSeconds& part) {
    return part.shown_communication(split);
  };
  for (const Stage& stage : stages) {
    const ModelSeconds& model = model_seconds(layout, stage.pipeline_rank);
    const auto rank = static_cast<size_t>(stage.pipeline_rank);
    compute_by_rank[rank] =
        plus(compute_by_rank[rank], times(pace, sum_of_stage(model, stage, compute_of)));
    communication_by_rank[rank] = plus(communication_by_rank[rank],
                                       times(pace, sum_of_stage(model, stage, communication_of)));
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
    backward = layout.trains() ? layout.micro_batches * compute.backward() : 0;
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

double StepModel::average_peak(const PlacedLayout& layout) const {
  double sum = 0;
  for (const Run& run : layout.placement.runs) {
    sum += run.pipeline_ranks * peak_flops(kinds_[run.group].nodes().device, job_.training.dtype);
  }
  return sum / layout.pipeline;
}

StepModel::StepTimes StepModel::step_times(const PlacedLayout& layout,
                                           const std::vector<Stage>& stages, const Timing& timing) {
  const std::vector<double> ends = reductions_end(layout, stages, timing);
  StepTimes times;
  times.reduced = std::max(timing.makespan, *std::max_element(ends.begin(), ends.end()));
  times.agreed = std::max(
      times.reduced, std::max(ends.front(), ends.back()) + tied_reduction_seconds(layout, stages));
  times.optimizer = optimizer_seconds(layout, stages);
  times.links = shared_links_seconds(layout, stages, times.total());
  return times;
}

std::optional<double> StepModel::seconds_within(const PlacedLayout& layout,
                                                const std::vector<Stage>& stages,
                                                const std::shared_ptr<const Schedule>& schedule,
                                                double most) {
  const Costs costs = shared_costs(layout, stages, *schedule);
  const auto timing = timings_->within(schedule, costs, most - optimizer_seconds(layout, stages));
  if (!timing) return std::nullopt;
  const double seconds = step_times(layout, stages, *timing).total();
  return seconds <= most ? std::optional(seconds) : std::nullopt;
}

namespace {

// Of the layers those on pipeline ranks that recompute.
double recomputed_share(const Layout& layout, const std::vector<Stage>& stages) {
  double recomputed = 0, all = 0;
  for (const Stage& stage : stages) {
    all += stage.layers;
    if (layout.recompute_on(stage.pipeline_rank) != Recompute::none) recomputed += stage.layers;
  }
  return recomputed / all;
}

// Every stage runs all its ops once a micro-batch.
double bubble_fraction(const Layout& layout, const Costs& costs, double makespan) {
  double busy = 0;
  for (const StageCost& cost : costs.stages) busy += layout.micro_batches * work_of(layout, cost);
  const double total = layout.pipeline * makespan;
  return total > 0 ? std::max(0.0, 1 - busy / total) : 0;
}

}  // namespace

Prediction StepModel::predict(const PlacedLayout& layout, const std::vector<Stage>& stages,
                              const std::shared_ptr<const Schedule>& known, bool peaks) {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  const Schedule& schedule = *known;
  Costs seconds = shared_costs(layout, stages, schedule);
  const Timing timing = *timings_->within(known, seconds, kAny);
  const StepTimes times = step_times(layout, stages, timing);
  Prediction prediction;
  prediction.step_seconds = times.total();
  const double tokens = static_cast<double>(job_.training.global_batch) * job_.model.sequence;
  prediction.tokens_per_second = tokens / prediction.step_seconds;
  const double per_device = prediction.tokens_per_second / layout.ranks();
  const double passes = model_flops_per_token(job_.model);
  const double done = layout.trains() ? passes : passes / 3;  // the forward is a third
  const double model_rate = per_device * done;
  prediction.model_tflops_per_device = model_rate / 1e12;
  const double hardware =
      layout.trains()
          ? hardware_flops_per_token(job_.model, layout.recompute, recomputed_share(layout, stages))
          : done;
  prediction.hardware_tflops_per_device = per_device * hardware / 1e12;
  prediction.mfu = model_rate / average_peak(layout);
  prediction.bubble_fraction = bubble_fraction(layout, seconds, timing.makespan);
  for (const MemoryParts& rank : memory(layout, stages, schedule)) {
    prediction.memory_bytes_per_pipeline_rank.push_back(rank.total());
  }
  const RankSends sends = this->sends(layout, stages);
  prediction.traffic = traffic(layout, stages, sends);
  prediction.links = busiest_links(cluster_, layout, sends);
  add_stages(seconds, layout, stages, prediction);
  add_breakdown(layout, stages, timing.makespan, prediction);
  const MeasuredStep* profile = measured(layout);
  const double exchange = profile != nullptr && layout.trains()
                              ? profile->end(layout, parameters_by_rank(layout, stages)).exchange
                              : 0;
  prediction.breakdown.emplace_back("data_reduction", times.reduced - timing.makespan + exchange);
  prediction.breakdown.emplace_back("tied_embeddings", times.agreed - times.reduced);
  prediction.breakdown.emplace_back("optimizer", times.optimizer - exchange);
  const double without = times.agreed + times.optimizer;
  if (times.links > without) {
    prediction.breakdown.emplace_back("shared_links", times.links - without);
  }
  if (peaks) {
    for (const StagePrediction& stage : prediction.stages) {
      seconds.memory.push_back({stage.activation_bytes, stage.activation_bytes});
    }
    prediction.peak_seconds_per_pipeline_rank = peak_times(schedule, seconds);
  }
  return prediction;
}

}  // namespace trireme
