#include <algorithm>
#include <limits>
#include <vector>

#include "planner/cost/rank_kinds.h"
#include "planner/cost/step.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

}  // namespace

// However the layers are cut, a rank that has T seconds for its work holds at most (T less its
// embedding or head) / (time of a layer in all micro-batches) of them, and all ranks together hold
// all. Rank r does not have the time in which the first micro-batch passes the stages before its
// own first, number r: the embedding, and a layer on each but stage 0. No rank holds part of a
// layer, and the head is on the last rank or, at the end of a V, the first.
QuickBound StepModel::quick_bounds(const PlacedLayout& layout, const LinkCost& message) {
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
  const double each_hop = message.hop + message.transfer;
  double waits = 0;  // by rank, in layers of that rank
  double first = 0;
  for (const RankKind& kind : kinds.fixed) {
    const double ranks = kind.ranks, last = first + ranks - 1;
    const double behind_0 = first == 0 ? ranks - 1 : ranks;
    const double before = (first + last) / 2 * ranks;  // sum of r
    const double compute = behind_0 * first_forward + (before - behind_0) * layer_forward;
    waits += (pace * compute + before * each_hop) / kind.layer;
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
std::vector<Trip> StepModel::trips(const PlacedLayout& layout, const LinkCost& message) {
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
  const double messages = (layout.pipeline - 1) * (message.hop + message.transfer);
  const int layers = job_.model.layers;
  const auto layers_faster = [&](double Kind::*way, double than) {
    double faster = 0;
    for (const Kind& kind : kinds) {
      faster += kind.layers_per_second * std::max(0.0, than - kind.*way);
    }
    return faster;
  };
  std::vector<Trip> trips;
  trips.reserve(1 + 2 * kinds.size());
  if (message.transfer > 0) trips.push_back({message.hop, message.transfer});
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

LinkCost StepModel::least_message(const PlacedLayout& layout) {
  const bool across = layout.placement.runs.size() > 1;
  if (!across || own_ != nullptr || measured(layout)) return {};
  return message_on(layout, links_.between_runs(layout));
}

// Measured steps have their messages and reductions in them.
double StepModel::network_bound(const PlacedLayout& layout) {
  const double m = layout.micro_batches;
  if (measured(layout)) return quick_bounds(layout).seconds(m);
  LinkCost message;
  if (layout.pipeline > 1 && own_ == nullptr) {
    PlacedLayout in_line = layout;  // whose last rank sends nothing to the first
    in_line.chunks = 1;
    message = message_on(layout, pipeline_paths(in_line).neighbours);
  }
  return std::max(reductions_bound(layout), quick_bounds(layout, message).seconds(m));
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
// micro-batch come before its backwards, and that chunk's backwards, which alone hide some of what
// all its chunks have to reduce.
void StepModel::add_reductions(const PlacedLayout& layout, const std::vector<Stage>& stages,
                               CutTimes& times) {
  const std::vector<double> seconds = reduction_seconds(layout, stages);
  const auto ranks = static_cast<size_t>(layout.pipeline);
  std::vector<double> forwards(ranks, 0), least_backward(ranks, kNone), most_hidden(ranks, 0);
  times.work.assign(ranks, 0);
  times.reduction.assign(ranks, kNone);
  times.reductions.assign(ranks, 0);
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto rank = static_cast<size_t>(stages[s].pipeline_rank);
    const StageCost& cost = times.costs.stages[s];
    times.work[rank] += work_of(layout, cost);
    forwards[rank] += cost.forward;
    least_backward[rank] = std::min(least_backward[rank], cost.backward());
    const double hidden = hidden_reduction(stages[s], cost.backward(), seconds[s]);
    most_hidden[rank] = std::max(most_hidden[rank], hidden);
    times.reduction[rank] = std::min(times.reduction[rank], seconds[s] - hidden);
    times.reductions[rank] += seconds[s];
  }
  times.work_before = forwards;
  for (size_t rank = 0; rank < ranks && layout.trains(); ++rank) {
    times.reductions[rank] -= most_hidden[rank];
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
  // A message for every chunk and micro-batch goes from each rank to the next, and back, unless
  // stages lie elsewhere.
  if (layout.pipeline > 1 && !follows_own(layout)) {
    bound.add(times.costs.hop, times.costs.transfer * layout.chunks);
  }
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
