#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "planner/cost/rank_kinds.h"
#include "planner/cost/step.h"
#include "planner/schedules/least_held.h"

namespace trireme {

// Bytes that a layer has resident and in activations of a micro-batch, and those that a device has
// for both.
StepModel::LayerMemory StepModel::layer_memory(const PlacedLayout& layout, size_t group,
                                               Recompute recompute) {
  const auto key =
      std::make_tuple(layout.tensor, layout.micro_batch, layout.sequence_parallel, recompute);
  auto activation = activations_.find(key);
  if (activation == activations_.end()) {
    const WorkShape shape = work_shape(job_, execution_, layout, recompute);
    const double bytes = stage_activation_bytes(job_.model, shape, on_cpu(layout), {.layers = 1});
    activation = activations_.emplace(key, bytes).first;
  }
  constexpr double kRounding = 1 + 1e-9;
  const Resident& resident = this->resident(layout);
  const double room = kinds_[group].nodes().device.memory_bytes - resident.reserve;
  return {resident.layer, activation->second, room * kRounding};
}

// Of a rank that holds one micro-batch: all its activations are there when it turns back.
int StepModel::LayerMemory::most_layers(int layers) const {
  return static_cast<int>(std::clamp(room / (resident + activation), 0.0, 1.0 * layers));
}

// Of a rank that holds what some schedule does at its peak.
int StepModel::LayerMemory::most_layers(int layers, const LeastHeld& held, int rank) const {
  int fit = 0, too_many = most_layers(layers) + 1;
  while (too_many - fit > 1) {
    const int between = (fit + too_many) / 2;
    (takes(between, held.held(rank, between)) <= room ? fit : too_many) = between;
  }
  return fit;
}

struct StepModel::KindsWithMemory {
  RankKinds kinds;
  std::vector<std::pair<RankLimit, LayerMemory>> memory;  // of each kind
};

// Every rank with what memory lets it hold, in order. The last ones may be open: they lie on
// several groups, one after the other.
struct StepModel::RankLimits {
  std::vector<RankLimit> fixed;
  std::vector<std::vector<RankLimit>> open;  // by group, each rank as if it lay there
  // Of two groups, how many open ranks the first may have.
  size_t fewest_on_first = 1, most_on_first = 1;

  int64_t layers_within(double seconds) const {
    const int64_t layers = of_ranks(fixed, seconds);
    if (open.empty()) return layers;
    return layers + (open.size() == 2 ? on_two_groups(seconds) : on_any_group(seconds));
  }

  // In which they can do so many layers, which are known to take no less than `early`; no more than
  // that, and closely.
  double least_seconds(int layers, double early) const {
    const auto do_all = [&](double seconds) { return layers_within(seconds) >= layers; };
    if (do_all(early)) return early;
    double late = early;
    for (const RankLimit& rank : fixed) late = std::max(late, rank.layer * layers);
    for (const auto& group : open) {
      for (const RankLimit& rank : group) late = std::max(late, rank.layer * layers);
    }
    if (!do_all(late)) return RankLimit::kNever;
    narrow(early, late, do_all);
    return early;
  }

 private:
  static int64_t of_ranks(const std::vector<RankLimit>& ranks, double seconds) {
    int64_t layers = 0;
    for (const RankLimit& rank : ranks) layers += rank.layers_within(seconds);
    return layers;
  }

  int64_t on_any_group(double seconds) const {
    int64_t layers = 0;
    for (size_t rank = 0; rank < open.front().size(); ++rank) {
      int most = 0;
      for (const auto& group : open) most = std::max(most, group[rank].layers_within(seconds));
      layers += most;
    }
    return layers;
  }

  int64_t on_two_groups(double seconds) const {
    int64_t layers = of_ranks(open[1], seconds), most = 0;
    for (size_t on_first = 1; on_first <= most_on_first; ++on_first) {
      const size_t rank = on_first - 1;
      layers += open[0][rank].layers_within(seconds) - open[1][rank].layers_within(seconds);
      if (on_first >= fewest_on_first) most = std::max(most, layers);
    }
    return most;
  }
};

StepModel::RankLimits StepModel::rank_limits(const PlacedLayout& layout, size_t settled,
                                             const LeastHeld& held) {
  const std::vector<Run>& runs = layout.placement.runs;
  // The ranks from `first` on, as far as they go, as if they lay on this run.
  const auto limits = [&](const Run& run, int first, int end) {
    std::vector<RankLimit> result;
    for_each_part(layout, {run.group, end - first}, first, [&](Recompute recompute, int ranks) {
      const double layer = seconds_of_layer(layout, run_seconds(layout, run, recompute));
      const LayerMemory memory = layer_memory(layout, run.group, recompute);
      for (int i = 0; i < ranks; ++i) {
        const int rank = first + static_cast<int>(result.size());
        result.push_back({layer, memory.most_layers(job_.model.layers, held, rank)});
      }
    });
    return result;
  };
  RankLimits result;
  int first = 0;
  for (size_t i = 0; i < settled; ++i) {
    const int end = first + runs[i].pipeline_ranks;
    const std::vector<RankLimit> of_run = limits(runs[i], first, end);
    result.fixed.insert(result.fixed.end(), of_run.begin(), of_run.end());
    first = end;
  }
  for (size_t i = settled; i < runs.size(); ++i) {
    result.open.push_back(limits(runs[i], first, layout.pipeline));
  }
  if (result.open.size() == 2) {
    const int left = layout.pipeline - first;
    const auto [on_first, on_second] =
        std::pair(runs[settled].pipeline_ranks, runs[settled + 1].pipeline_ranks);
    result.fewest_on_first = static_cast<size_t>(std::max(1, left - on_second));
    result.most_on_first = static_cast<size_t>(std::min(on_first, left - 1));
  }
  return result;
}

// Kinds of ranks, each with as many layers as it has memory for with one micro-batch.
StepModel::KindsWithMemory StepModel::kinds_with_memory(const PlacedLayout& layout,
                                                        size_t settled) {
  KindsWithMemory result;
  RankKinds& kinds = result.kinds;
  kinds.ranks_of_open = layout.pipeline;
  int first = 0;
  for (size_t i = 0; i < layout.placement.runs.size(); ++i) {
    const Run& run = layout.placement.runs[i];
    const auto ranks_of = [&](Recompute recompute, int ranks) -> RankKind {
      const LayerMemory memory = layer_memory(layout, run.group, recompute);
      const RankLimit limit{seconds_of_layer(layout, run_seconds(layout, run, recompute)),
                            memory.most_layers(job_.model.layers)};
      result.memory.emplace_back(limit, memory);
      return {limit, ranks};
    };
    if (i < settled) {
      for_each_part(layout, run, first, [&](Recompute recompute, int ranks) {
        kinds.fixed.push_back(ranks_of(recompute, ranks));
      });
      kinds.ranks_of_open -= run.pipeline_ranks;
      first += run.pipeline_ranks;
      continue;
    }
    RankKind& open = kinds.open.emplace_back(ranks_of(layout.recompute, run.pipeline_ranks));
    if (layout.recompute_ranks == 0) continue;
    const RankKind others = ranks_of(Recompute::none, run.pipeline_ranks);
    open.layer = std::min(open.layer, others.layer);
    open.most = std::max(open.most, others.most);
  }
  return result;
}

// The least time of a step in which ranks with memory for so many layers can do them all, embedding
// and head aside: with naive, whose micro-batches pass all layers one after the other, or with what
// holds more of them at a time. Ranks that are still open go where they do most.
double StepModel::fitting_bound(const PlacedLayout& layout, size_t settled, const LeastHeld& held) {
  const int layers = job_.model.layers;
  auto [kinds, memory] = kinds_with_memory(layout, settled);
  const double step = pace(layout) * layout.micro_batches;
  const double one_at_a_time = kinds.least_seconds(layers);
  if (one_at_a_time == RankLimit::kNever || !held.any()) return step * one_at_a_time;
  const bool room_for_more = std::all_of(memory.begin(), memory.end(), [&](const auto& of_kind) {
    const int most = of_kind.first.layers_within(one_at_a_time);
    return of_kind.second.takes(most, held.most(most)) <= of_kind.second.room;
  });
  if (room_for_more) return step * one_at_a_time;
  double least = rank_limits(layout, settled, held).least_seconds(layers, one_at_a_time);
  if (held.naive()) least = std::min(least, std::max(one_at_a_time, layers * kinds.least_layer()));
  return step * least;
}

// The slowest rank of the fastest cut takes no longer than with the same number of layers on every
// rank, embedding and head on one of the slowest kind. No schedule holds anything of a micro-batch
// twice.
bool StepModel::surely_fits(const PlacedLayout& layout) {
  if (own_ != nullptr || job_.pins.even_cut.value_or(false)) return false;
  const int layers = job_.model.layers;
  double slowest = 0, ends = 0;
  for (const Run& run : layout.placement.runs) {
    const ModelSeconds& model = run_seconds(layout, run, layout.recompute);
    slowest = std::max(slowest, seconds_of_layer(layout, model) + model.layer.more_when_split);
    ends = std::max(ends, work_of(layout, plus(model.embedding.total(), model.head.total())));
  }
  // All stages but the first and the last need one.
  const int even =
      std::max((layers + layout.pipeline - 1) / layout.pipeline, (layers + 2) / layout.pipeline);
  const double longest = even * slowest + ends;
  const WorkShape shape = work_shape(job_, execution_, layout, layout.recompute);
  const bool cpu = on_cpu(layout);
  PlacedLayout whole = layout;
  whole.pipeline = 1;
  const auto has_room = [&](const Run& run) {
    const double layer = seconds_of_layer(layout, run_seconds(layout, run, layout.recompute));
    const int most = RankLimit{layer, layers}.layers_within(longest);
    // Stages of their own have a copy of tied embeddings each.
    const std::vector<Stage> all = {{.layers = most, .embedding = true}, {.head = true}};
    double needed = resident_memory(job_, execution_, whole, all, cpu).front().total() +
                    passing_bytes(job_.model, shape, cpu, true);
    for (const Stage& stage : all) {
      needed += layout.micro_batches * stage_activation_bytes(job_.model, shape, cpu, stage);
    }
    constexpr double kRounding = 1 + 1e-9;
    return needed * kRounding <= kinds_[run.group].nodes().device.memory_bytes;
  };
  return std::all_of(layout.placement.runs.begin(), layout.placement.runs.end(), has_room);
}

}  // namespace trireme
