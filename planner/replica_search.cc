#include "planner/replica_search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "planner/candidates.h"
#include "planner/layer_cut.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// The micro-batches in a step of all replicas.
int64_t total_of(const Job& job, const Layout& layout) {
  return job.training.global_batch / layout.micro_batch;
}

int64_t ceil_of(int64_t dividend, int64_t divisor) {
  return (dividend + divisor - 1) / divisor;
}

// No schedule is through with more micro-batches before `seconds`.
int64_t most_on_any_schedule(const CutTimes& times, double seconds) {
  double most = static_cast<double>(std::numeric_limits<int>::max());
  for (size_t rank = 0; rank < times.work.size(); ++rank) {
    const double for_work = seconds - times.optimizer - times.reduction[rank];
    most = std::min(most, for_work / times.work[rank] + 1e-6);  // whatever rounding makes of it
  }
  return static_cast<int64_t>(std::max(0.0, most));
}

void set_counts(MixedReplicas& mixed, const std::vector<int>& micro_batches) {
  mixed.layout.shares.clear();
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    mixed.layout.shares.push_back({mixed.sets[i].replicas, micro_batches[i]});
  }
  mixed.layout.micro_batches = micro_batches.front();
}

// Whether the layout's schedule can be built for every share.
bool is_built(const Layout& layout) {
  return std::all_of(layout.shares.begin(), layout.shares.end(), [&](const Share& share) {
    return !why_not_searched(layout.schedule, layout.pipeline, share.micro_batches, layout.chunks);
  });
}

// What a layout is but for its placement and who takes how many micro-batches.
Layout but_for_counts(Layout layout) {
  layout.micro_batches = 0;
  layout.shares.clear();
  return layout;
}

// Sets are compared as they are of the same kinds of node in any order.
std::vector<ReplicaSet> ordered(std::vector<ReplicaSet> sets) {
  std::sort(sets.begin(), sets.end());
  return sets;
}

std::vector<MixedReplicas>::const_iterator find_same(const std::vector<MixedReplicas>& among,
                                                     const MixedReplicas& mixed) {
  const Layout layout = but_for_counts(mixed.layout);
  const std::vector<ReplicaSet> sets = ordered(mixed.sets);
  return std::find_if(among.begin(), among.end(), [&](const MixedReplicas& other) {
    return but_for_counts(other.layout) == layout && ordered(other.sets) == sets;
  });
}

}  // namespace

ReplicaSearch::ReplicaSearch(const Job& job, const Cluster& cluster, const PlanOptions& options,
                             StepModel& model, ScheduleTrials& trials, Choices& choices,
                             std::vector<double> others)
    : job_(job),
      cluster_(cluster),
      options_(options),
      model_(model),
      trials_(trials),
      choices_(choices),
      others_(std::move(others)) {}

// A set of such degrees whose replicas take so many micro-batches each.
PlacedLayout ReplicaSearch::part_of(const Degrees& degrees, size_t set, int micro_batches) {
  MixedReplicas mixed{degrees.layout, degrees.sets, Near::data, {}, {}, 0};
  set_counts(mixed, std::vector<int>(degrees.sets.size(), micro_batches));
  return mixed.part(set);
}

std::vector<MixedReplicas> ReplicaSearch::run() {
  const auto top = static_cast<size_t>(std::max(1, options_.top));
  std::sort(others_.begin(), others_.end());
  most_ = kNever;
  if (others_.size() >= top) most_ = others_[top - 1];
  // A schedule of the caller's own has one number of micro-batches; sums of unequal replicas have
  // no order of their own.
  if (options_.schedule || job_.training.reduction == Reduction::ordered) return {};
  for (const std::vector<size_t>& groups : group_sequences(cluster_)) {
    if (groups.size() > 1 && std::is_sorted(groups.begin(), groups.end())) enumerate(groups);
  }
  std::stable_sort(degrees_.begin(), degrees_.end(),
                   [](const Degrees& a, const Degrees& b) { return a.bound < b.bound; });
  for (const Degrees& degrees : degrees_) {
    if (degrees.bound >= most_) break;
    open(degrees);
  }
  return std::move(best_);
}

void ReplicaSearch::enumerate(const std::vector<size_t>& groups) {
  int devices = 0;  // of a node, what tensor groups of all kinds divide
  int domain = std::numeric_limits<int>::max();
  for (const size_t group : groups) {
    devices = std::gcd(devices, cluster_.groups[group].devices);
    domain = std::min(domain, link_domain(cluster_.groups[group]));
  }
  const Pins& pins = job_.pins;
  for (int tensor = 1; tensor <= std::min({devices, domain, job_.model.kv_heads}); ++tensor) {
    if (devices % tensor != 0 || tensor != pins.tensor.value_or(tensor)) continue;
    for (int pipeline = pins.pipeline.value_or(1);
         pipeline <= pins.pipeline.value_or(pipeline) &&
         fewest_layers(pipeline, pins.chunks.value_or(1)) <= job_.model.layers;
         ++pipeline) {
      Layout layout;
      if (pins.schedule) layout.schedule = *pins.schedule;
      layout.tensor = tensor;
      layout.pipeline = pipeline;
      const bool room = std::all_of(groups.begin(), groups.end(), [&](size_t group) {
        return replica_capacity(layout, cluster_.groups[group]) > 0;
      });
      if (!room) break;
      for (const int micro_batch : divisors(job_.training.global_batch)) {
        if (micro_batch != pins.micro_batch.value_or(micro_batch)) continue;
        layout.micro_batch = micro_batch;
        add_degrees(groups, layout);
      }
    }
  }
}

void ReplicaSearch::add_degrees(const std::vector<size_t>& groups, const Layout& of_replica) {
  Degrees degrees{of_replica, {}, kNever};
  Layout& layout = degrees.layout;
  layout.data = 0;
  for (const size_t group : groups) {
    const int replicas = replica_capacity(layout, cluster_.groups[group]);
    degrees.sets.push_back({group, replicas});
    layout.data += replicas;
  }
  if (layout.data != job_.pins.data.value_or(layout.data)) return;
  if (total_of(job_, layout) < layout.data) return;
  const std::vector<Options>& options = choices_.options(layout, false);
  for (const Options& choice : options) {
    // Recomputation only adds to the work, and sharding is no part of it; but figures that were
    // measured may say anything.
    const bool adds = choice.recompute != options.front().recompute ||
                      choice.optimizer_sharding != options.front().optimizer_sharding;
    if (choice.recompute_ranks > 0 || (adds && !options_.profile)) continue;
    apply(choice, layout);
    degrees.bound = std::min(degrees.bound, bound_of(degrees));
  }
  degrees_.push_back(std::move(degrees));
}

void ReplicaSearch::open(const Degrees& closed) {
  Degrees degrees = closed;
  for (const Options& choice : choices_.options(degrees.layout, false)) {
    if (choice.recompute_ranks > 0) continue;
    apply(choice, degrees.layout);
    if (bound_of(degrees) >= most_ || !may_fit(degrees)) continue;
    std::map<std::pair<bool, int>, Cut> cuts;  // by V placement and chunks
    for (const Completion& completion : possible_completions(job_, degrees.layout.pipeline)) {
      degrees.layout.schedule = completion.schedule;
      degrees.layout.chunks = completion.chunks;
      const auto key = std::make_pair(v_placed(completion.schedule), completion.chunks);
      auto known = cuts.find(key);
      if (known == cuts.end()) known = cuts.emplace(key, cut_of(degrees)).first;
      complete(degrees, known->second);
    }
  }
}

// However the micro-batches are shared out, one of the sets is not done before: when all are, were
// micro-batches divisible, or then as soon as enough whole ones are.
double ReplicaSearch::bound_of(const Degrees& degrees) {
  const auto total = static_cast<double>(total_of(job_, degrees.layout));
  std::vector<QuickBound> bounds;
  double at_slowest = 0, at_average = 0, waited = 0;  // micro-batches, the first two a second
  for (size_t i = 0; i < degrees.sets.size(); ++i) {
    const QuickBound& bound = bounds.emplace_back(model_.quick_bounds(part_of(degrees, i, 1)));
    at_slowest += degrees.sets[i].replicas / bound.slowest;
    at_average += degrees.sets[i].replicas / bound.average;
    waited += degrees.sets[i].replicas * bound.waits / bound.average;
  }
  double seconds = std::max(total / at_slowest, (total + waited) / at_average);
  for (;;) {
    double done = 0, next = kNever;
    for (size_t i = 0; i < bounds.size(); ++i) {
      const double each = bounds[i].micro_batches(seconds);
      done += degrees.sets[i].replicas * each;
      next = std::min(next, bounds[i].seconds(each + 1));
    }
    if (done >= total) return seconds;
    seconds = next;
  }
}

bool ReplicaSearch::may_fit(const Degrees& degrees) {
  if (options_.any_memory) return true;
  for (size_t i = 0; i < degrees.sets.size(); ++i) {
    const PlacedLayout part = part_of(degrees, i, 1);
    if (model_.average_resident(part) > model_.average_device_memory(part)) return false;
  }
  return true;
}

ReplicaSearch::Cut ReplicaSearch::cut_of(const Degrees& degrees) {
  size_t slowest = 0;
  double longest = 0;
  for (size_t i = 0; i < degrees.sets.size(); ++i) {
    const double layer = model_.layer_seconds(degrees.layout, degrees.sets[i].group);
    if (layer > longest) slowest = i;
    longest = std::max(longest, layer);
  }
  Cut cut{model_.fastest_cut(part_of(degrees, slowest, 1)), {}};
  for (const Near near : near_choices(part_of(degrees, 0, 1), cluster_)) {
    std::vector<CutTimes> times;
    for (size_t i = 0; i < degrees.sets.size(); ++i) {
      PlacedLayout part = part_of(degrees, i, 1);
      part.placement.near = near;
      times.push_back(model_.cut_times(part, cut.stages));
    }
    cut.times.emplace_back(near, std::move(times));
  }
  return cut;
}

void ReplicaSearch::complete(const Degrees& degrees, const Cut& cut) {
  for (const auto& [near, times] : cut.times) {
    MixedReplicas mixed{degrees.layout, degrees.sets, near, cut.stages, {}, 0};
    if (most_of(mixed) == kNever) {
      set_counts(mixed, std::vector<int>(mixed.sets.size(), 1));  // which hold the least
      if (!least_fits(mixed)) return;
      find_any(mixed, times, bound_of(degrees));
    }
    if (most_of(mixed) < kNever) try_counts(mixed, counts_in_time(mixed, times, most_of(mixed)));
  }
}

// While nothing bounds the step, there are more ways to share out the micro-batches than can be
// listed. So first those that may be done within `seconds`, then in ever longer times, until
// something fits.
void ReplicaSearch::find_any(MixedReplicas& mixed, const std::vector<CutTimes>& times,
                             double seconds) {
  const double longest = longest_bound(mixed, times);
  for (double share = 1.0 / 256; most_of(mixed) == kNever && seconds <= longest;) {
    seconds *= 1 + share;
    const std::vector<Counts> counts = counts_in_time(mixed, times, seconds);
    if (!counts.empty()) share *= 2;
    try_counts(mixed, counts);
  }
}

// Of a set whose replicas take so many micro-batches each.
double ReplicaSearch::bound_of(const MixedReplicas& mixed, size_t set, const CutTimes& times,
                               int64_t micro_batches) const {
  PlacedLayout part = part_of({mixed.layout, mixed.sets, 0}, set, static_cast<int>(micro_batches));
  part.placement.near = mixed.near;
  return model_.cut_bound(part, times);
}

// Of the set that would take longest with all micro-batches.
double ReplicaSearch::longest_bound(const MixedReplicas& mixed,
                                    const std::vector<CutTimes>& times) const {
  const int64_t total = total_of(job_, mixed.layout);
  double longest = 0;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    longest = std::max(longest, bound_of(mixed, i, times[i], total / mixed.sets[i].replicas));
  }
  return longest;
}

void ReplicaSearch::try_counts(MixedReplicas& mixed, const std::vector<Counts>& all) {
  for (const Counts& counts : all) {
    if (counts.bound >= most_of(mixed)) break;
    set_counts(mixed, counts.micro_batches);
    if (!is_built(mixed.layout)) continue;
    ++considered_;
    if (fits(mixed)) try_schedules(mixed);
  }
}

// The most micro-batches that each replica of a set can do in less time while the others do theirs;
// nothing where all together cannot do the batch. A step takes the longer the more there are. First
// whatever the schedule, which mostly tells already that it cannot be; then the one that is named.
std::optional<std::vector<int64_t>> ReplicaSearch::most_in_time(const MixedReplicas& mixed,
                                                                const std::vector<CutTimes>& times,
                                                                double in_time) const {
  const int64_t total = total_of(job_, mixed.layout);
  std::vector<int64_t> most;
  int64_t room = 0;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const int64_t replicas = mixed.sets[i].replicas;
    most.push_back(std::min(total / replicas, most_on_any_schedule(times[i], in_time)));
    room += most[i] * replicas;
  }
  for (size_t i = 0; i < most.size() && room >= total; ++i) {
    const int64_t replicas = mixed.sets[i].replicas;
    const int64_t others = room - most[i] * replicas;
    int64_t done = std::max<int64_t>(1, ceil_of(total - others, replicas));
    if (bound_of(mixed, i, times[i], done) >= in_time) return std::nullopt;
    for (int64_t late = most[i] + 1; late - done > 1;) {
      const int64_t middle = done + (late - done) / 2;
      (bound_of(mixed, i, times[i], middle) < in_time ? done : late) = middle;
    }
    room = others + done * replicas;
    most[i] = done;
  }
  return room < total ? std::nullopt : std::optional(most);
}

// All ways to share out the micro-batches that may be done in less time, best bound first: the last
// set takes what the others leave.
std::vector<ReplicaSearch::Counts> ReplicaSearch::counts_in_time(const MixedReplicas& mixed,
                                                                 const std::vector<CutTimes>& times,
                                                                 double in_time) const {
  const auto limits = most_in_time(mixed, times, in_time);
  if (!limits) return {};
  const std::vector<int64_t>& most = *limits;
  const size_t sets = mixed.sets.size();
  std::vector<Counts> result;
  std::vector<int> now(sets, 0);
  const std::function<void(size_t, int64_t)> share = [&](size_t i, int64_t left) {
    const int64_t replicas = mixed.sets[i].replicas;
    if (i + 1 == sets) {
      if (left % replicas != 0 || left < replicas || left / replicas > most[i]) return;
      now[i] = static_cast<int>(left / replicas);
      result.push_back({0, now});
      return;
    }
    int64_t others = 0;
    for (size_t k = i + 1; k < sets; ++k) others += mixed.sets[k].replicas * most[k];
    const int64_t least = std::max<int64_t>(1, ceil_of(left - others, replicas));
    for (int64_t count = least; count <= std::min(most[i], left / replicas); ++count) {
      now[i] = static_cast<int>(count);
      share(i + 1, left - count * replicas);
    }
  };
  share(0, total_of(job_, mixed.layout));
  for (Counts& counts : result) {
    for (size_t i = 0; i < sets; ++i) {
      counts.bound = std::max(counts.bound, bound_of(mixed, i, times[i], counts.micro_batches[i]));
    }
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const Counts& a, const Counts& b) { return a.bound < b.bound; });
  return result;
}

void ReplicaSearch::try_schedules(const MixedReplicas& mixed) {
  // Replicas whose weights are never the same between steps have no common step to share out.
  const PlacedLayout first = mixed.part(0);
  if (trials_.built(first, trials_.groups_of(first).front())->asynchronous) return;
  ++evaluated_;
  if (auto found = simulated(mixed, most_of(mixed))) record(*std::move(found));
}

// Of the placements and counts of one layout only the best is of interest.
double ReplicaSearch::most_of(const MixedReplicas& mixed) const {
  const auto same = find_same(best_, mixed);
  return same == best_.end() ? most_ : std::min(most_, same->seconds);
}

// Whatever the schedule of that name holds.
bool ReplicaSearch::least_fits(const MixedReplicas& mixed) const {
  if (options_.any_memory) return true;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    const CutMemory memory = model_.cut_memory(part, mixed.stages);
    if (trials_.worst_miss(part, model_.least_memory(part, memory)).second > 0) return false;
  }
  return true;
}

bool ReplicaSearch::fits(const MixedReplicas& mixed) {
  if (options_.any_memory) return true;
  if (!least_fits(mixed)) return false;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    const auto least = trials_.built(part, trials_.groups_of(part).front());
    if (trials_.worst_miss(part, model_.memory(part, mixed.stages, *least)).second > 0) {
      return false;
    }
  }
  return true;
}

std::optional<MixedReplicas> ReplicaSearch::simulated(const MixedReplicas& mixed, double most) {
  std::vector<std::pair<double, size_t>> longest_first;
  std::vector<std::optional<int>> groups;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const auto choice = trials_.fastest(mixed.part(i), mixed.stages, most);
    if (!choice) return std::nullopt;
    groups.push_back(choice->group);
    longest_first.emplace_back(-choice->seconds, i);
  }
  std::sort(longest_first.begin(), longest_first.end());
  MixedReplicas sorted = mixed;
  sorted.groups.clear();
  for (size_t to = 0; to < mixed.sets.size(); ++to) {
    const size_t from = longest_first[to].second;
    sorted.sets[to] = mixed.sets[from];
    sorted.layout.shares[to] = mixed.layout.shares[from];
    sorted.groups.push_back(groups[from]);
  }
  sorted.layout.micro_batches = sorted.layout.shares.front().micro_batches;
  sorted.seconds = -longest_first.front().first;
  return sorted;
}

void ReplicaSearch::record(MixedReplicas mixed) {
  if (mixed.seconds >= most_of(mixed)) return;
  const auto same = find_same(best_, mixed);
  if (same != best_.end()) best_.erase(same);
  const auto after = std::upper_bound(
      best_.begin(), best_.end(), mixed,
      [](const MixedReplicas& a, const MixedReplicas& b) { return a.seconds < b.seconds; });
  best_.insert(after, std::move(mixed));
  const auto top = static_cast<size_t>(std::max(1, options_.top));
  if (best_.size() > top) best_.pop_back();
  std::vector<double> all = others_;
  for (const MixedReplicas& found : best_) all.push_back(found.seconds);
  if (all.size() < top) return;
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(top - 1), all.end());
  most_ = all[top - 1];
}

Prediction predict(StepModel& model, ScheduleTrials& trials, const MixedReplicas& mixed) {
  Prediction whole;
  double peak = 0;  // FLOP/s of the average device
  std::vector<double> least_room(static_cast<size_t>(mixed.layout.pipeline), kNever);
  std::vector<PipelineRun> runs;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    const Prediction of_set =
        model.predict(part, mixed.stages, *trials.built(part, mixed.groups[i]));
    // The rate that the step's tokens come at over the share of the peak that it is.
    peak += of_set.model_tflops_per_device / of_set.mfu * part.replicas() / part.data;
    runs.push_back({part.replicas(), of_set.step_seconds - of_set.seconds_after_ops(),
                    of_set.bubble_fraction});
    if (i == 0) whole = of_set;
    for (size_t rank = 0; rank < least_room.size(); ++rank) {
      const double bytes = of_set.memory_bytes_per_pipeline_rank[rank];
      const double room = model.device_memory(part, static_cast<int>(rank)) - bytes;
      if (room >= least_room[rank]) continue;
      least_room[rank] = room;
      whole.memory_bytes_per_pipeline_rank[rank] = bytes;
    }
    if (i == 0) continue;
    whole.other_shares.push_back(of_set);
    for (const LinkTraffic& link : of_set.links) {
      const auto same = std::find_if(whole.links.begin(), whole.links.end(),
                                     [&](const auto& known) { return known.link == link.link; });
      if (same == whole.links.end()) {
        whole.links.push_back(link);
      } else if (same->seconds < link.seconds) {
        *same = link;
      }
    }
  }
  whole.mfu = whole.model_tflops_per_device / peak;
  whole.bubble_fraction = bubble_of_all(runs);
  return whole;
}

}  // namespace trireme
