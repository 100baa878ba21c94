#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "planner/cost/step.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

// The figures of a profile may say that a layer takes nothing, and it is divided by.
constexpr double kLeastSeconds = 1e-12;

// Of a layer.
double seconds_of_layer(const Layout& layout, const ModelSeconds& model) {
  return std::max(work_of(layout, model.layer.total()), kLeastSeconds);
}

// How many layers a pipeline rank can do in a time: that of one, and the most that it may have.
struct RankLimit {
  double layer = 0;
  int most = 0;

  int layers_within(double seconds) const {
    constexpr double kRounding = 1 + 1e-12;
    return static_cast<int>(std::min(1.0 * most, seconds / layer * kRounding));
  }
  double seconds_of_one_more(double seconds) const {
    const int layers = layers_within(seconds);
    return layers < most ? (layers + 1) * layer : kNone;
  }
};

// Ranks that are alike: how many, or how many at most where that is open.
struct RankKind : RankLimit {
  int ranks = 0;
};

// Ranks of fixed kinds and, of the open ones, so many that do most.
struct RankKinds {
  std::vector<RankKind> fixed, open;
  int ranks_of_open = 0;

  int64_t layers_within(double seconds);
  double least_seconds(int layers);
  double least_layer() const {
    double least = kNone;
    for_each([&](const RankKind& kind) { least = std::min(least, kind.layer); });
    return least;
  }

 private:
  template <class Callback>
  void for_each(Callback callback) const {
    std::for_each(fixed.begin(), fixed.end(), callback);
    std::for_each(open.begin(), open.end(), callback);
  }
};

int64_t RankKinds::layers_within(double seconds) {
  int64_t layers = 0;
  for (const RankKind& kind : fixed) layers += int64_t{kind.ranks} * kind.layers_within(seconds);
  std::sort(open.begin(), open.end(), [&](const RankKind& a, const RankKind& b) {
    return a.layers_within(seconds) > b.layers_within(seconds);
  });
  int left = ranks_of_open;
  for (const RankKind& kind : open) {
    const int ranks = std::min(left, kind.ranks);
    layers += int64_t{ranks} * kind.layers_within(seconds);
    left -= ranks;
  }
  return layers;
}

// In which they can do so many layers, when none is split; infinite: never. It is no earlier than
// if layers were split and, where ranks may have one more than that, later by no more than the
// slowest takes for it. Once it is known closely, the times at which some rank is through with one
// layer more are few.
double RankKinds::least_seconds(int layers) {
  double late = 0, early = kNone, slowest = 0, per_second = 0;
  for_each([&](const RankKind& kind) {
    late = std::max(late, kind.layer * kind.most);
    early = std::min(early, kind.layer);
    slowest = std::max(slowest, kind.layer);
    per_second += kind.ranks / kind.layer;
  });
  constexpr double kLess = 1 - 1e-9, kClose = 1 + 1.0 / 256;
  early = kLess * std::max(early, layers / per_second);
  const bool known_closely = layers_within(early + slowest) >= layers;
  if (!known_closely && layers_within(late) < layers) return kNone;
  while (!known_closely && late > early * kClose) {
    const double between = std::sqrt(early * late);
    (layers_within(between) < layers ? early : late) = between;
  }
  while (layers_within(early) < layers) {
    double next = kNone;
    for_each([&](const RankKind& kind) { next = std::min(next, kind.seconds_of_one_more(early)); });
    early = next;
  }
  return early;
}

}  // namespace

// However the layers are cut, a rank that has T seconds for its work holds at most (T less its
// embedding or head) / (time of a layer in all micro-batches) of them, and all ranks together hold
// all. Rank r does not have the time in which the first micro-batch passes the stages before its
// own first, number r: the embedding, and a layer on each but stage 0. No rank holds part of a
// layer, and the head is on the last rank or, at the end of a V, the first.
QuickBound StepModel::quick_bounds(const PlacedLayout& layout, const MessageSeconds& message) {
  double per_second = 0, embedding = kNone, head = kNone;
  double first_forward = kNone, layer_forward = kNone, first_head = 0, last_head = 0;
  const int layers = job_.model.layers;
  RankKinds kinds;
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    const double layer = seconds_of_layer(layout, model);
    last_head = work_of(layout, model.head.total());
    if (kinds.fixed.empty()) first_head = last_head;
    kinds.fixed.push_back({{layer, layers}, ranks});
    per_second += ranks / layer;
    embedding = std::min(embedding, work_of(layout, model.embedding.total()) / layer);
    head = std::min(head, last_head / layer);
    first_forward = std::min(first_forward, model.embedding.total().forward);
    layer_forward = std::min(layer_forward, model.layer.total().forward);
  });
  const double pace = this->pace(layout);
  QuickBound bound;
  bound.average = pace * (layers + embedding + head) / per_second;
  bound.slowest = std::max(bound.average, pace * kinds.least_seconds(layers));
  if (const MeasuredStep* profile = measured(layout)) {
    bound.slowest = std::max(bound.slowest, profile->average_bound(layout, bound.average));
    return bound;
  }
  if (own_ != nullptr) return bound;  // its stages may lie anywhere
  bound.slowest = std::max(bound.slowest, pace * std::min(first_head, last_head));
  double waits = 0;  // by rank, in layers of that rank
  double first = 0;
  for (const RankKind& kind : kinds.fixed) {
    const double ranks = kind.ranks, last = first + ranks - 1;
    const double behind_0 = first == 0 ? ranks - 1 : ranks;
    const double before = (first + last) / 2 * ranks;  // sum of r
    const double compute = behind_0 * first_forward + (before - behind_0) * layer_forward;
    waits += (pace * compute + before * message.total()) / kind.layer;
    first += ranks;
  }
  bound.waits = waits / per_second;
  bound.trips = trips(layout, message);
  return bound;
}

// A micro-batch passes all layers forward and then back. And no rank begins a backward before some
// micro-batch has passed all layers forward, so the rank that has most of them to do does all of
// them after that.
//
// In a step of T seconds with m micro-batches, ranks of kind k hold at most a_k T / m layers, a_k
// being their number by the seconds of a layer. If each of the L layers takes c_k on the way, the
// way takes at least
//   min { sum n_k c_k : sum n_k = L, n_k <= a_k T / m }
//     = max over j of L c_j - T / m * sum a_k max(0, c_j - c_k)
// (duality of linear programs, whose other side has its corners at the c_j), and T is no less.
std::vector<Trip> StepModel::trips(const PlacedLayout& layout, const MessageSeconds& message) {
  struct Kind {
    double layers_per_second = 0;  // a_k
    double forward = 0, there_and_back = 0;
  };
  std::vector<Kind> kinds;
  double ends_forward = kNone, ends_both = kNone;  // of the embedding and the head
  double backwards_per_second = 0;                 // of a layer and micro-batch
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    const StageCost layer = model.layer.total();
    const StageCost ends = plus(model.embedding.total(), model.head.total());
    kinds.push_back(
        {ranks / seconds_of_layer(layout, model), layer.forward, layer.forward + layer.input});
    ends_forward = std::min(ends_forward, ends.forward);
    ends_both = std::min(ends_both, ends.forward + ends.input);
    backwards_per_second += ranks / std::max(layer.backward(), kLeastSeconds);
  });
  const double pace = this->pace(layout);
  const double messages = (layout.pipeline - 1) * message.total();
  const int layers = job_.model.layers;
  const auto layers_faster = [&](double Kind::*way, double than) {
    double faster = 0;
    for (const Kind& kind : kinds) {
      faster += kind.layers_per_second * std::max(0.0, than - kind.*way);
    }
    return faster;
  };
  std::vector<Trip> trips;
  if (message.total() > 0) trips.push_back({message.hop, message.transfer});
  for (const Kind& kind : kinds) {
    const double each = layout.trains() ? pace * layers / backwards_per_second : 0;
    trips.push_back({pace * (layers * kind.forward + ends_forward) + messages, each,
                     layers_faster(&Kind::forward, kind.forward)});
    if (!layout.trains()) continue;
    trips.push_back({pace * (layers * kind.there_and_back + ends_both) + 2 * messages, 0,
                     layers_faster(&Kind::there_and_back, kind.there_and_back)});
  }
  return trips;
}

MessageSeconds StepModel::message_on(const PlacedLayout& layout, const Path& path) {
  return {path.latency_s + gather_seconds(layout), message_bytes(layout) / path.bytes_per_s};
}

MessageSeconds StepModel::least_message(const PlacedLayout& layout) {
  const bool across = layout.placement.runs.size() > 1;
  if (!across || own_ != nullptr || measured(layout)) return {};
  return message_on(layout, links_.between_runs(layout));
}

// Measured steps have their messages and reductions in them.
double StepModel::network_bound(const PlacedLayout& layout) {
  const double m = layout.micro_batches;
  if (measured(layout)) return quick_bounds(layout).seconds(m);
  MessageSeconds message;
  if (layout.pipeline > 1 && own_ == nullptr) {
    PlacedLayout in_line = layout;  // whose last rank sends nothing to the first
    in_line.chunks = 1;
    message = message_on(layout, pipeline_paths(in_line).neighbours);
  }
  return std::max(reductions_bound(layout), quick_bounds(layout, message).seconds(m));
}

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
    if (layers_within(early) >= layers) return early;
    double late = early;
    for (const RankLimit& rank : fixed) late = std::max(late, rank.layer * layers);
    for (const auto& group : open) {
      for (const RankLimit& rank : group) late = std::max(late, rank.layer * layers);
    }
    if (layers_within(late) < layers) return kNone;
    constexpr double kClose = 1 + 1.0 / 256;
    while (late > early * kClose) {
      const double between = std::sqrt(early * late);
      (layers_within(between) < layers ? early : late) = between;
    }
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

// The least time of a step in which ranks with memory for so many layers can do them all, embedding
// and head aside: with naive, whose micro-batches pass all layers one after the other, or with what
// holds more of them at a time. Ranks that are still open go where they do most.
double StepModel::fitting_bound(const PlacedLayout& layout, size_t settled, const LeastHeld& held) {
  const int layers = job_.model.layers;
  RankKinds kinds;
  kinds.ranks_of_open = layout.pipeline;
  std::vector<std::pair<RankLimit, LayerMemory>> memories;
  int first = 0;
  for (size_t i = 0; i < layout.placement.runs.size(); ++i) {
    const Run& run = layout.placement.runs[i];
    const auto ranks_of = [&](Recompute recompute, int ranks) -> RankKind {
      const LayerMemory memory = layer_memory(layout, run.group, recompute);
      const RankLimit limit{seconds_of_layer(layout, run_seconds(layout, run, recompute)),
                            memory.most_layers(layers)};
      memories.emplace_back(limit, memory);
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
  const double step = pace(layout) * layout.micro_batches;
  const double one_at_a_time = kinds.least_seconds(layers);
  if (one_at_a_time == kNone || !held.any()) return step * one_at_a_time;
  const auto has_room = [&](const auto& of_kind) {
    const int most = of_kind.first.layers_within(one_at_a_time);
    return of_kind.second.takes(most, held.most(most)) <= of_kind.second.room;
  };
  if (std::all_of(memories.begin(), memories.end(), has_room)) return step * one_at_a_time;
  const double naive = held.naive() ? std::max(one_at_a_time, layers * kinds.least_layer()) : kNone;
  const RankLimits limits = rank_limits(layout, settled, held);
  return step * std::min(naive, limits.least_seconds(layers, one_at_a_time));
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
    slowest = std::max(slowest, seconds_of_layer(layout, model));
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

// A chunk's gradients are all there once its rank has done all forwards, of all its chunks, as each
// micro-batch's come before its backwards. Then it reduces all that it has, but for as much as a
// micro-batch's backwards hide. Of more layers in one collective none takes longer, by any formula;
// what was measured may say anything.
double StepModel::reductions_bound(const PlacedLayout& layout) {
  if (layout.data == 1 || !layout.trains() || data_group(layout).profile != nullptr) return 0;
  const int layers = job_.model.layers;
  const double reduction = reduction_seconds(layout, {{.layers = layers}}).front() / layers;
  const double pace = this->pace(layout);
  double per_second = 0;  // layers
  for_each_kind(layout, [&](const ModelSeconds& model, int ranks) {
    const StageCost layer = times(pace, model.layer.total());
    const double shown = std::max(0.0, reduction - layer.backward());
    per_second += ranks / std::max(layout.micro_batches * layer.forward + shown, kLeastSeconds);
  });
  return layers / per_second;
}

CutTimes StepModel::cut_times(const PlacedLayout& layout, const std::vector<Stage>& stages) {
  CutTimes times;
  times.costs = costs(layout, stages);
  times.optimizer = optimizer_seconds(layout, stages);
  add_reductions(layout, stages, times);
  return times;
}

void StepModel::move(const PlacedLayout& layout, const std::vector<Stage>& stages,
                     CutTimes& times) {
  if (!execution_.overlap_pipeline) {
    times.costs = costs(layout, stages);
  } else if (!measured(layout)) {
    add_messages(layout, stages, times.costs);
  }
  add_reductions(layout, stages, times);
}

// A rank's gradients of its last chunk to finish are there after all its work, and still have to
// be reduced. Those of its first chunk to finish are there after all its forwards, as those of a
// micro-batch come before its backwards, and that chunk's backwards.
void StepModel::add_reductions(const PlacedLayout& layout, const std::vector<Stage>& stages,
                               CutTimes& times) {
  const std::vector<double> seconds = reduction_seconds(layout, stages);
  const auto ranks = static_cast<size_t>(layout.pipeline);
  std::vector<double> forwards(ranks, 0), least_backward(ranks, kNone);
  times.work.assign(ranks, 0);
  times.reduction.assign(ranks, kNone);
  times.reductions.assign(ranks, 0);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    const StageCost& cost = times.costs.stages[s];
    times.work[rank] += work_of(layout, cost);
    forwards[rank] += cost.forward;
    least_backward[rank] = std::min(least_backward[rank], cost.backward());
    const double shown = seconds[s] - hidden_reduction(stages[s], cost.backward(), seconds[s]);
    times.reduction[rank] = std::min(times.reduction[rank], shown);
    times.reductions[rank] += shown;
  }
  times.work_before = forwards;
  for (size_t rank = 0; rank < ranks && layout.trains(); ++rank) {
    times.work_before[rank] += least_backward[rank];
  }
}

StepBound StepModel::bound_on_cut(const PlacedLayout& layout, const CutTimes& times,
                                  std::optional<int> at) const {
  StepBound bound(at);
  if (follows_own(layout)) {
    bound.add(makespan_of(*own_, times.costs), 0);
  } else {
    bound = schedule_bound(layout.schedule, layout.pipeline, layout.chunks, times.costs, at);
  }
  // A message for every chunk and micro-batch goes from each rank to the next, and back.
  if (layout.pipeline > 1) bound.add(times.costs.hop, times.costs.transfer * layout.chunks);
  // No rank has all its gradients summed earlier.
  for (size_t rank = 0; rank < times.work.size(); ++rank) {
    bound.add(times.reduction[rank], times.work[rank]);
    bound.add(times.reductions[rank], times.work_before[rank]);
  }
  bound.then(times.optimizer);
  return bound;
}

double StepModel::cut_bound(const PlacedLayout& layout, const CutTimes& times) const {
  const double seconds =
      bound_on_cut(layout, times, layout.micro_batches).seconds(layout.micro_batches);
  const MeasuredStep* profile = measured(layout);
  if (profile == nullptr) return seconds;
  std::vector<double> work = times.work;
  for (double& of_rank : work) of_rank *= layout.micro_batches;
  return std::max(seconds, profile->work_bound(layout, work) + times.optimizer);
}

}  // namespace trireme
