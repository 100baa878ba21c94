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

// As `layout`, whose sets take so many micro-batches.
MixedReplicas with_counts(const Layout& layout, const std::vector<ReplicaSet>& sets,
                          const std::vector<int>& micro_batches) {
  MixedReplicas mixed{layout, sets, Near::data, {}, {}, 0};
  mixed.layout.shares.clear();
  for (size_t i = 0; i < sets.size(); ++i) {
    mixed.layout.shares.push_back({sets[i].replicas, micro_batches[i]});
  }
  mixed.layout.micro_batches = micro_batches.front();
  return mixed;
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

std::vector<MixedReplicas> ReplicaSearch::run() {
  const auto top = static_cast<size_t>(std::max(1, options_.top));
  std::sort(others_.begin(), others_.end());
  most_ = others_.size() < top ? kNever : others_[top - 1];
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
      Layout one;
      one.tensor = tensor;
      one.data = pipeline;  // as many devices as a replica has
      const bool room = std::all_of(groups.begin(), groups.end(), [&](size_t group) {
        return pipeline_capacity(one, cluster_.groups[group]) > 0;
      });
      if (!room) break;
      for (const int micro_batch : divisors(job_.training.global_batch)) {
        if (micro_batch != pins.micro_batch.value_or(micro_batch)) continue;
        add_degrees(groups, tensor, pipeline, micro_batch);
      }
    }
  }
}

void ReplicaSearch::add_degrees(const std::vector<size_t>& groups, int tensor, int pipeline,
                                int micro_batch) {
  Degrees degrees;
  Layout& layout = degrees.layout;
  if (job_.pins.schedule) layout.schedule = *job_.pins.schedule;
  layout.tensor = tensor;
  layout.pipeline = pipeline;
  layout.micro_batch = micro_batch;
  layout.data = 0;
  for (const size_t group : groups) {
    Layout one;
    one.tensor = tensor;
    one.data = pipeline;
    const int replicas = pipeline_capacity(one, cluster_.groups[group]);
    degrees.sets.push_back({group, replicas});
    layout.data += replicas;
  }
  if (layout.data != job_.pins.data.value_or(layout.data)) return;
  if (total_of(job_, layout) < layout.data) return;
  degrees.bound = kNever;
  const std::vector<Options>& options = choices_.options(layout, false);
  for (const Options& choice : options) {
    // Recomputation only adds to the work, and sharding is no part of it; but figures that were
    // measured may say anything.
    const bool adds = choice.recompute != options.front().recompute ||
                      choice.optimizer_sharding != options.front().optimizer_sharding;
    if (choice.recompute_ranks > 0 || (adds && !options_.profile)) continue;
    layout.recompute = choice.recompute;
    layout.sequence_parallel = choice.sequence_parallel;
    layout.optimizer_sharding = choice.optimizer_sharding;
    // However the micro-batches are shared out, the sets are not done before all are.
    double speed = 0, work = static_cast<double>(total_of(job_, layout));
    const std::vector<Line> lines = this->lines(degrees);
    for (size_t i = 0; i < lines.size(); ++i) {
      speed += degrees.sets[i].replicas / lines[i].each;
      work += degrees.sets[i].replicas * lines[i].fixed / lines[i].each;
    }
    degrees.bound = std::min(degrees.bound, work / speed);
  }
  degrees_.push_back(std::move(degrees));
}

std::vector<ReplicaSearch::Line> ReplicaSearch::lines(const Degrees& degrees) {
  std::vector<Line> result;
  for (size_t i = 0; i < degrees.sets.size(); ++i) {
    const auto bound = [&](int micro_batches) {
      const std::vector<int> all(degrees.sets.size(), micro_batches);
      return model_.quick_bound(with_counts(degrees.layout, degrees.sets, all).part(i));
    };
    const double one = bound(1), each = bound(2) - one;
    result.push_back({one - each, each});
  }
  return result;
}

void ReplicaSearch::open(const Degrees& closed) {
  Degrees degrees = closed;
  for (const Options& choice : choices_.options(degrees.layout, false)) {
    if (choice.recompute_ranks > 0) continue;
    degrees.layout.recompute = choice.recompute;
    degrees.layout.sequence_parallel = choice.sequence_parallel;
    degrees.layout.optimizer_sharding = choice.optimizer_sharding;
    if (!may_fit(degrees)) continue;
    for (const Counts& counts : this->counts(degrees, lines(degrees))) {
      if (counts.bound >= most_) break;
      complete(degrees, counts);
    }
  }
}

bool ReplicaSearch::may_fit(const Degrees& degrees) {
  if (options_.any_memory) return true;
  const std::vector<int> ones(degrees.sets.size(), 1);
  const MixedReplicas mixed = with_counts(degrees.layout, degrees.sets, ones);
  for (size_t i = 0; i < degrees.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    if (model_.average_resident(part) > model_.average_device_memory(part)) return false;
  }
  return true;
}

// All that may be done in time, best bound first: the last set takes what the others leave.
std::vector<ReplicaSearch::Counts> ReplicaSearch::counts(const Degrees& degrees,
                                                         const std::vector<Line>& lines) const {
  const size_t sets = lines.size();
  std::vector<int64_t> most(sets);  // micro-batches that each set's replicas manage in time
  for (size_t i = 0; i < sets; ++i) {
    const double in_time = most_ == kNever ? 1e18 : (most_ - lines[i].fixed) / lines[i].each;
    most[i] = static_cast<int64_t>(
        std::clamp(in_time, 0.0, static_cast<double>(total_of(job_, degrees.layout))));
  }
  std::vector<Counts> result;
  Counts now{0, std::vector<int>(sets, 0)};
  const std::function<void(size_t, int64_t)> share = [&](size_t i, int64_t left) {
    const int64_t replicas = degrees.sets[i].replicas;
    if (i + 1 == sets) {
      if (left % replicas != 0 || left < replicas || left / replicas > most[i]) return;
      now.micro_batches[i] = static_cast<int>(left / replicas);
      now.bound = 0;
      for (size_t k = 0; k < sets; ++k) {
        now.bound = std::max(now.bound, lines[k].at(now.micro_batches[k]));
      }
      result.push_back(now);
      return;
    }
    int64_t others = 0;
    for (size_t k = i + 1; k < sets; ++k) others += degrees.sets[k].replicas * most[k];
    const int64_t least = std::max<int64_t>(1, (left - others + replicas - 1) / replicas);
    for (int64_t count = least; count <= std::min(most[i], left / replicas); ++count) {
      now.micro_batches[i] = static_cast<int>(count);
      share(i + 1, left - count * replicas);
    }
  };
  share(0, total_of(job_, degrees.layout));
  std::stable_sort(result.begin(), result.end(),
                   [](const Counts& a, const Counts& b) { return a.bound < b.bound; });
  return result;
}

void ReplicaSearch::complete(const Degrees& degrees, const Counts& counts) {
  MixedReplicas mixed = with_counts(degrees.layout, degrees.sets, counts.micro_batches);
  size_t slowest = 0;
  double longest = 0;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const double bound = model_.quick_bound(mixed.part(i));
    if (bound > longest) slowest = i;
    longest = std::max(longest, bound);
  }
  std::map<std::pair<bool, int>, std::vector<Stage>> cuts;  // by V placement and chunks
  for (const Completion& completion : choices_.completions(mixed.part(slowest))) {
    mixed.layout.schedule = completion.schedule;
    mixed.layout.chunks = completion.chunks;
    const bool built = std::all_of(mixed.layout.shares.begin(), mixed.layout.shares.end(),
                                   [&](const Share& share) {
                                     return !why_not({.name = completion.schedule,
                                                      .pipeline = mixed.layout.pipeline,
                                                      .micro_batches = share.micro_batches,
                                                      .chunks = completion.chunks});
                                   });
    if (!built) continue;
    ++considered_;
    const auto key = std::make_pair(v_placed(completion.schedule), completion.chunks);
    auto known = cuts.find(key);
    if (known == cuts.end()) {
      known = cuts.emplace(key, model_.fastest_cut(mixed.part(slowest))).first;
    }
    mixed.stages = known->second;
    try_placements(mixed);
  }
}

void ReplicaSearch::try_placements(MixedReplicas mixed) {
  bool known_to_fit = false;
  for (const Near near : near_choices(mixed.layout)) {
    mixed.near = near;
    double bound = 0;
    for (size_t i = 0; i < mixed.sets.size() && bound < most_; ++i) {
      const PlacedLayout part = mixed.part(i);
      bound = std::max(bound, model_.cut_bound(part, model_.cut_times(part, mixed.stages)));
    }
    if (bound >= most_) continue;
    if (!known_to_fit && !fits(mixed)) return;  // memory is the same wherever ranks sit
    known_to_fit = true;
    ++evaluated_;
    if (auto found = simulated(mixed)) record(*std::move(found));
  }
}

bool ReplicaSearch::fits(const MixedReplicas& mixed) {
  if (options_.any_memory) return true;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    const CutMemory memory = model_.cut_memory(part, mixed.stages);
    if (trials_.worst_miss(part, model_.least_memory(part, memory)).second > 0) return false;
  }
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    const auto least = trials_.built(part, trials_.groups_of(part).front());
    if (trials_.worst_miss(part, model_.memory(part, mixed.stages, *least)).second > 0) {
      return false;
    }
  }
  return true;
}

std::optional<MixedReplicas> ReplicaSearch::simulated(MixedReplicas mixed) {
  std::vector<std::pair<double, size_t>> longest_first;
  std::vector<std::optional<int>> groups;
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const auto choice = trials_.fastest(mixed.part(i), mixed.stages, most_);
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
  if (mixed.seconds >= most_) return;
  // Of the placements of one layout only the best is of interest.
  const auto same = std::find_if(best_.begin(), best_.end(), [&](const MixedReplicas& other) {
    return other.layout == mixed.layout && other.sets == mixed.sets;
  });
  if (same != best_.end()) {
    if (same->seconds <= mixed.seconds) return;
    best_.erase(same);
  }
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
  for (size_t i = 0; i < mixed.sets.size(); ++i) {
    const PlacedLayout part = mixed.part(i);
    const Prediction of_set =
        model.predict(part, mixed.stages, *trials.built(part, mixed.groups[i]));
    // The rate that the step's tokens come at over the share of the peak that it is.
    peak += of_set.model_tflops_per_device / of_set.mfu * part.replicas() / part.data;
    if (i == 0) {
      whole = of_set;
      continue;
    }
    for (size_t rank = 0; rank < whole.memory_bytes_per_pipeline_rank.size(); ++rank) {
      double& most = whole.memory_bytes_per_pipeline_rank[rank];
      most = std::max(most, of_set.memory_bytes_per_pipeline_rank[rank]);
    }
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
  return whole;
}

}  // namespace trireme
