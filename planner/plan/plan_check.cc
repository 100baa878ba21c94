#include "planner/plan/plan_check.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "planner/plan/limits.h"

namespace trireme {
namespace {

using Fault = std::optional<PlanFault>;

template <class... Args>
Fault fault(const char* key, fmt::format_string<Args...> text, Args&&... args) {
  return PlanFault{key, fmt::format(text, std::forward<Args>(args)...)};
}

// All replicas in one share or another, and their samples those of the batch.
Fault find_share_fault(const Plan& plan) {
  const Layout& layout = plan.layout;
  int64_t replicas = 0, samples = 0;
  for (const Share& share : layout.shares) {
    const int64_t rounds = int64_t{share.replicas} * share.micro_batches;  // below 2^50
    replicas += share.replicas;
    samples += std::min<int64_t>(rounds, limits::kBatch + 1) * layout.micro_batch;
    if (samples > limits::kBatch) break;
  }
  if (replicas != layout.data) {
    return fault("layout", "found shares of {} replicas, expected {}", replicas, layout.data);
  }
  if (layout.shares.front().micro_batches != layout.micro_batches) {
    return fault("layout", "found micro_batches = {}, expected {} as in the first share",
                 layout.micro_batches, layout.shares.front().micro_batches);
  }
  if (samples != plan.job.training.global_batch) {
    return fault("layout", "found {} samples in all shares, expected {}", samples,
                 plan.job.training.global_batch);
  }
  // Said, since what suits the device may be another device's choice where the plan runs.
  if (plan.job.training.reduction != Reduction::fast) {
    return fault(
        "layout",
        "found shares without reduction = \"fast\": sums of unequal replicas have no order "
        "of their own");
  }
  return std::nullopt;
}

Fault find_degree_fault(const Plan& plan) {
  const auto& layout = plan.layout;
  const auto ranks = int64_t{layout.tensor} * layout.pipeline;
  if (ranks > limits::kRanks || ranks * layout.data > limits::kRanks) {
    return fault("layout", "found {} x {} x {} ranks, expected at most {}", layout.tensor,
                 layout.pipeline, layout.data, limits::kRanks);
  }
  if (layout.recompute_ranks >= std::max(1, layout.pipeline)) {
    return fault("layout",
                 "found {} pipeline ranks that recompute of {}, expected fewer, or 0: all",
                 layout.recompute_ranks, layout.pipeline);
  }
  if (!layout.shares.empty()) return find_share_fault(plan);
  const auto replica = int64_t{layout.micro_batch} * layout.micro_batches;
  const auto batch = int64_t{plan.job.training.global_batch};
  if (replica > batch || replica * layout.data != batch) {
    return fault("layout",
                 "found {} micro-batches of {} samples on {} replicas, expected {} samples in all",
                 layout.micro_batches, layout.micro_batch, layout.data, batch);
  }
  return std::nullopt;
}

// Every layer once and in order, the embedding on the first stage, the head on the last, every
// chunk of every rank used.
Fault find_stage_fault(const Plan& plan) {
  const auto expected = int64_t{plan.layout.pipeline} * plan.layout.chunks;
  const auto count = static_cast<int64_t>(plan.stages.size());
  if (count != expected) {
    return fault("stages", "found {} stages, expected {} (pipeline x chunks)", count, expected);
  }
  int next_layer = 0;
  std::set<std::pair<int, int>> places;
  for (int64_t s = 0; s < count; ++s) {
    const auto& stage = plan.stages[static_cast<size_t>(s)];
    if (stage.pipeline_rank >= plan.layout.pipeline || stage.chunk >= plan.layout.chunks ||
        !places.emplace(stage.pipeline_rank, stage.chunk).second) {
      return fault("stages",
                   "found stage {} as chunk {} of pipeline rank {}, expected each of {} x {} once",
                   s, stage.chunk, stage.pipeline_rank, plan.layout.chunks, plan.layout.pipeline);
    }
    if (stage.first_layer != next_layer) {
      return fault("stages",
                   "found first_layer {} in stage {}, expected {}, where the stage before ends",
                   stage.first_layer, s, next_layer);
    }
    if (stage.embedding != (s == 0) || stage.head != (s == count - 1)) {
      return fault("stages", "found stage {} with embedding = {} and head = {}, expected {} and {}",
                   s, stage.embedding, stage.head, s == 0, s == count - 1);
    }
    if (stage.layers > plan.job.model.layers - next_layer) {
      return fault("stages", "found layers up to {} in stage {}, expected {} layers in all",
                   int64_t{next_layer} + stage.layers, s, plan.job.model.layers);
    }
    next_layer += stage.layers;
  }
  if (next_layer != plan.job.model.layers) {
    return fault("stages", "found {} layers in all stages, expected {}", next_layer,
                 plan.job.model.layers);
  }
  return std::nullopt;
}

Fault find_row_fault(const Plan& plan, const Schedule& schedule, int rank) {
  for (const auto& op : schedule.ranks[static_cast<size_t>(rank)]) {
    const auto stage = static_cast<size_t>(op.stage);
    if (stage >= plan.stages.size() || plan.stages[stage].pipeline_rank != rank) {
      return fault("schedule", "found {} in row {}, where stage {} does not live", to_string(op),
                   rank + 1, op.stage);
    }
    if (op.micro_batch >= schedule.micro_batches) {
      return fault("schedule", "found {} in row {}, expected micro-batches below {}", to_string(op),
                   rank + 1, schedule.micro_batches);
    }
  }
  return std::nullopt;
}

Fault find_fault_of(const Plan& plan, const Schedule& schedule, int micro_batches) {
  if (schedule.micro_batches != micro_batches) {
    return fault("schedule", "found micro_batches = {}, expected {} as in layout",
                 schedule.micro_batches, micro_batches);
  }
  if (schedule.pipeline() != plan.layout.pipeline) {
    return fault("schedule", "found {} rows, expected {}, one for each pipeline rank",
                 schedule.pipeline(), plan.layout.pipeline);
  }
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlace place{plan.stages[s].pipeline_rank, plan.stages[s].chunk};
    if (s >= schedule.stages.size() || schedule.stages[s] != place) {
      return fault("schedule", "found another place for stage {} than in stages", s);
    }
  }
  for (int rank = 0; rank < schedule.pipeline(); ++rank) {
    if (auto found = find_row_fault(plan, schedule, rank)) return found;
  }
  return std::nullopt;
}

Fault find_schedule_fault(const Plan& plan) {
  const std::vector<Share>& shares = plan.layout.shares;
  if (plan.other_schedules.size() + 1 != std::max<size_t>(1, shares.size())) {
    return fault("other_schedules", "found {}, expected one for each share but the first",
                 plan.other_schedules.size());
  }
  if (auto found = find_fault_of(plan, plan.schedule, plan.layout.micro_batches)) return found;
  for (size_t i = 1; i < shares.size(); ++i) {
    const Schedule& other = plan.other_schedules[i - 1];
    if (other.asynchronous || plan.schedule.asynchronous) {
      return fault("other_schedules", "found an asynchronous schedule, expected none with shares");
    }
    if (auto found = find_fault_of(plan, other, shares[i].micro_batches)) return found;
  }
  return std::nullopt;
}

// n forwards, then a backward and a forward in turn, then n backwards: what a stream of steps can
// be made of without a flush.
std::vector<Op> row_of_stream(int stage, int depth, int micro_batches) {
  std::vector<Op> row;
  row.reserve(2 * static_cast<size_t>(micro_batches));
  for (int m = 0; m < depth; ++m) row.push_back({OpKind::forward, false, stage, m});
  for (int m = 0; m < micro_batches; ++m) {
    row.push_back({OpKind::backward, false, stage, m});
    if (m + depth < micro_batches) row.push_back({OpKind::forward, false, stage, m + depth});
  }
  return row;
}

// An asynchronous schedule runs as one endless stream, which these rules make free of deadlock:
// a stage never lets more micro-batches in than the stage before it.
Fault find_asynchronous_fault(const Plan& plan) {
  if (!plan.schedule.asynchronous) return std::nullopt;
  const auto stages = static_cast<int>(plan.stages.size());
  if (plan.job.model.tied_embeddings && stages > 1) {
    return fault("schedule",
                 "found tied embeddings on {} stages that update at different times, expected "
                 "tied_embeddings = false or a synchronous schedule",
                 stages);
  }
  int depth_before = plan.schedule.micro_batches;
  for (int s = 0; s < stages; ++s) {
    const auto& row = plan.schedule.ranks[static_cast<size_t>(plan.stages[s].pipeline_rank)];
    const auto first_backward = std::find_if(
        row.begin(), row.end(), [](const Op& op) { return op.kind != OpKind::forward; });
    const auto depth = static_cast<int>(first_backward - row.begin());
    if (depth < 1 || depth > depth_before ||
        row != row_of_stream(s, depth, plan.schedule.micro_batches)) {
      return fault("schedule",
                   "found another order of stage {} than an asynchronous schedule may have, "
                   "expected one stage per rank and in its row n forwards, a backward and a "
                   "forward in turn, then n backwards, with 1 <= n <= {}",
                   s, depth_before);
    }
    depth_before = depth;
  }
  return std::nullopt;
}

Fault find_placement_fault(const Plan& plan) {
  const auto ranks = static_cast<size_t>(plan.layout.ranks());
  if (plan.placement.size() != ranks) {
    return fault("placement", "found {} ranks, expected {} (tensor x pipeline x data)",
                 plan.placement.size(), ranks);
  }
  std::set<std::pair<std::string_view, int>> used;
  for (const auto& place : plan.placement) {
    if (used.emplace(place.node, place.device).second) continue;
    return fault("placement", "found {}:{} twice, expected one rank for each device", place.node,
                 place.device);
  }
  return std::nullopt;
}

Fault find_prediction_fault(const Plan& plan) {
  const Prediction& prediction = plan.prediction;
  const auto pipeline = static_cast<size_t>(plan.layout.pipeline);
  const size_t rows = prediction.memory_bytes_per_pipeline_rank.size();
  if (rows != 0 && rows != pipeline) {
    return fault("prediction", "found memory for {} pipeline ranks, expected {}", rows, pipeline);
  }
  const size_t peaks = prediction.peak_seconds_per_pipeline_rank.size();
  if (peaks != 0 && peaks != pipeline) {
    return fault("prediction", "found times of the peak of {} pipeline ranks, expected {}", peaks,
                 pipeline);
  }
  const size_t others = prediction.other_shares.size();
  if (others != 0 && others + 1 != plan.layout.shares.size()) {
    const size_t shares = plan.layout.shares.size();
    return fault("prediction", "found {} other_shares, expected {}", others,
                 shares == 0 ? 0 : shares - 1);
  }
  const auto odd = [&](const PipelineTimes& times) {
    return !times.stages.empty() && times.stages.size() != plan.stages.size();
  };
  std::vector<const PipelineTimes*> all{&prediction};
  for (const PipelineTimes& share : prediction.other_shares) all.push_back(&share);
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const PipelineTimes* times) { return odd(*times); });
  if (found == all.end()) return std::nullopt;
  return fault("prediction", "found figures of {} stages, expected {}", (*found)->stages.size(),
               plan.stages.size());
}

}  // namespace

std::optional<PlanFault> find_fault(const Plan& plan) {
  for (const auto find : {find_degree_fault, find_stage_fault, find_schedule_fault,
                          find_asynchronous_fault, find_placement_fault, find_prediction_fault}) {
    if (auto found = find(plan)) return found;
  }
  return std::nullopt;
}

}  // namespace trireme
