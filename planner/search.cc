#include "planner/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <queue>
#include <tuple>

#include "planner/assumptions.h"
#include "planner/candidates.h"
#include "planner/checker.h"
#include "planner/choices.h"
#include "planner/cost/step.h"
#include "planner/idle.h"
#include "planner/layout_text.h"
#include "planner/replica_search.h"
#include "planner/schedules/schedules.h"
#include "planner/trials.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr const char* kNotTried =
    " Not tried on CPU nodes unless pinned: recompute=full, sequence_parallel=true, "
    "optimizer_sharding=1";

// A simulation stops when the step surely exceeds its bound by this share, which is then the bound;
// should that become the least, the next one looks twice as far.
constexpr double kFirstLook = 1.0 / 256;

constexpr double kNever = std::numeric_limits<double>::infinity();

// How much is known of a candidate: more costs more to find out. `degrees` stands for all options,
// `options` for all ways to spread the pipeline over a sequence of node groups, `spread` for all
// layouts that complete it with a schedule, chunks and the order of ranks; their seconds bound them
// all from below.
enum class Known { degrees, options, spread, cut_bound, exact };

struct Candidate {
  PlacedLayout layout;
  size_t sequence = 0;  // of node groups
  // Among candidates of equal seconds the first in the order of enumeration is the better one.
  int64_t order = 0;
  double seconds = 0;  // a lower bound, or the prediction
  Known known = Known::degrees;
  // By how much more than the bound the next simulation looks.
  double further = kFirstLook;
  // Of micro-batches, once the seconds are exact: the fastest that fits.
  std::optional<int> group = std::nullopt;
};

// More than a layout can have completions, and than degrees can have options.
constexpr int64_t kMostCompletions = int64_t{1} << 24;
constexpr int64_t kMostOptions = 128;

std::string reason_of(const Miss& miss) {
  const MemoryParts& parts = miss.needed;
  return fmt::format(
      "pipeline rank {} lacks {:.2f} GB: {:.2f} GB needed (parameters {:.2f}, gradients {:.2f}, "
      "optimizer {:.2f}, activations {:.2f}, reserve {:.2f}) of {:.2f} GB",
      miss.pipeline_rank, miss.missing_bytes() / 1e9, parts.total() / 1e9, parts.parameters / 1e9,
      parts.gradients / 1e9, parts.optimizer / 1e9, parts.activations / 1e9, parts.reserve / 1e9,
      miss.device_bytes / 1e9);
}

// Best-first search: the candidate of least bound is looked at more closely until the least is an
// exact prediction, which then nothing can beat (A* with lazily refined bounds). Degrees come
// first; schedules and chunks are tried only for those whose bound is low enough.
class Search {
 public:
  Search(const Job& job, const Cluster& cluster, const PlanOptions& options)
      : assumed_(assumptions(job, cluster)),
        job_(with_assumptions(options.schedule ? pinned_to(job, *options.schedule) : job, cluster)),
        cluster_(cluster),
        options_(options),
        model_(job_, cluster, options.profile.get(), options.schedule.get()),
        trials_(model_, options),
        sequences_(group_sequences(cluster)),
        choices_(job_, options.schedule.get(),
                 [this](const std::string& layout, const std::string& reason) {
                   reject(layout, reason);
                 }) {}

  std::variant<PlanResult, NoPlan> run() {
    const double begin = options_.clock ? options_.clock() : 0;
    check_pins(job_);
    enumerate();
    look_at_the_best();
    look_at_mixed_replicas();
    if (best_.empty() && mixed_.empty()) {
      // Of those that were set aside, one may be the closest miss.
      for (Candidate& candidate : set_aside_) push(std::move(candidate));
      look_at_the_best();
      return nothing_fits();
    }
    fill_result();
    if (options_.clock) result_.seconds = options_.clock() - begin;
    return std::move(result_);
  }

 private:
  using Entry = std::tuple<double, int64_t, size_t>;  // seconds, order, position in candidates_

  void reject(const std::string& layout, const std::string& reason) {
    last_reason_ = layout + ": " + reason;
    if (options_.keep_rejections) result_.rejections.push_back({layout, reason});
  }

  void look_at_the_best() {
    while (!queue_.empty() && static_cast<int>(best_.size()) < std::max(1, options_.top)) {
      const size_t next = std::get<size_t>(queue_.top());
      queue_.pop();
      advance(next);
    }
  }

  void look_at_mixed_replicas() {
    std::vector<double> others;
    for (const size_t index : best_) others.push_back(candidates_[index].seconds);
    ReplicaSearch search(job_, cluster_, options_, model_, trials_, choices_, std::move(others));
    mixed_ = search.run();
    result_.considered += search.considered();
    result_.evaluated += search.evaluated();
  }

  void enumerate() {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      std::vector<const NodeGroup*> kinds;
      for (const size_t group : sequences_[i]) kinds.push_back(&cluster_.groups[group]);
      // What holds for each kind alone need not be said again of several.
      CandidateSinks sinks{[&](const Layout& layout) { add_degrees(layout, i); }, {}};
      if (kinds.size() == 1) {
        sinks.rejection = [&](const std::string& layout, const std::string& reason) {
          reject(layout, reason);
        };
      }
      enumerate_degrees(job_, kinds, sinks);
    }
    if (options_.keep_rejections) return look_at_all();
    std::vector<Entry> entries;
    entries.reserve(candidates_.size());
    for (size_t i = 0; i < candidates_.size(); ++i) entries.push_back(entry(i));
    queue_ = decltype(queue_)(std::greater<>(), std::move(entries));
  }

  void add_degrees(const Layout& layout, size_t sequence) {
    const size_t count = choices_.completions(layout).size();
    if (count == 0) return;
    const std::vector<Options>& options = choices_.options(layout, on_cpu(sequence));
    result_.considered += static_cast<int64_t>(count * options.size());
    // Recomputation only adds to the work that the first bound is made of, and sharding is no part
    // of it; but figures that were measured may say anything.
    Candidate candidate{placed_on(layout, sequences_[sequence].front()), sequence,
                        ++degrees_ * kMostCompletions * kMostOptions, kNever};
    for (const Options& choice : options) {
      const bool adds = choice.recompute != options.front().recompute ||
                        choice.recompute_ranks != options.front().recompute_ranks ||
                        choice.optimizer_sharding != options.front().optimizer_sharding;
      if (adds && !options_.profile) continue;
      take(choice, candidate.layout, sequence);
      candidate.seconds = std::min(candidate.seconds, model_.quick_bound(candidate.layout));
    }
    candidates_.push_back(std::move(candidate));
  }

  bool on_cpu(size_t sequence) const {
    return cluster_.groups[sequences_[sequence].front()].device.is_cpu();
  }

  // Gives the layout these options and the spread over its node groups that is fastest with them.
  void take(const Options& options, PlacedLayout& layout, size_t sequence) {
    apply(options, layout);
    const std::vector<size_t>& groups = sequences_[sequence];
    if (groups.size() > 1) layout.placement.runs = fastest_spread(layout, groups);
  }

  // The candidates that these degrees stand for, one for each choice of options.
  std::vector<Candidate> with_options(const Candidate& degrees) {
    std::vector<Candidate> result;
    Candidate candidate = degrees;
    candidate.known = sequences_[degrees.sequence].size() > 1 ? Known::options : Known::spread;
    for (const Options& choice : choices_.options(degrees.layout, on_cpu(degrees.sequence))) {
      take(choice, candidate.layout, degrees.sequence);
      candidate.seconds = model_.quick_bound(candidate.layout);
      result.push_back(candidate);
      candidate.order += kMostCompletions;
    }
    return result;
  }

  // Puts these in the place of their degrees, as far as they may fit. Several kinds of node have
  // as much memory as the spread makes of them, which is still open.
  void open_options(size_t index) {
    const Candidate degrees = candidates_[index];
    for (Candidate& candidate : with_options(degrees)) {
      const bool open = candidate.known == Known::options;
      if (open || options_.any_memory || lacks_on_average(candidate.layout) <= 0) {
        push(std::move(candidate));
      } else {
        fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
        set_aside_.push_back(std::move(candidate));
      }
    }
  }

  // Bytes that the average pipeline rank needs beyond its device, whatever the schedule: more than
  // none, and no cut fits.
  double lacks_on_average(const PlacedLayout& layout) {
    return model_.average_resident(layout) - model_.average_device_memory(layout);
  }

  // As many pipeline ranks as possible where a layer takes least.
  std::vector<Run> fastest_spread(const Layout& layout, const std::vector<size_t>& groups) {
    std::vector<Run> runs;
    for (const size_t group : groups) runs.push_back({group, 1});
    std::vector<size_t> fastest_first(groups.size());
    std::iota(fastest_first.begin(), fastest_first.end(), size_t{0});
    std::stable_sort(fastest_first.begin(), fastest_first.end(), [&](size_t a, size_t b) {
      return model_.layer_seconds(layout, groups[a]) < model_.layer_seconds(layout, groups[b]);
    });
    int left = layout.pipeline - static_cast<int>(groups.size());
    for (const size_t i : fastest_first) {
      const int more = std::min(left, pipeline_capacity(layout, cluster_.groups[groups[i]]) - 1);
      runs[i].pipeline_ranks += more;
      left -= more;
    }
    return runs;
  }

  // On nodes of one kind every layout's memory is looked at, fast or slow, so that all reasons can
  // be listed.
  void look_at_all() {
    const size_t degrees = candidates_.size();
    for (size_t i = 0; i < degrees; ++i) {
      for (Candidate& candidate : with_options(Candidate(candidates_[i]))) {
        candidates_.push_back(std::move(candidate));
        const size_t added = candidates_.size() - 1;
        if (candidates_[added].known == Known::spread) {
          advance(added);
        } else {
          queue_.push(entry(added));
        }
      }
    }
  }

  Entry entry(size_t index) const {
    return {candidates_[index].seconds, candidates_[index].order, index};
  }

  void advance(size_t index) {
    switch (candidates_[index].known) {
      case Known::degrees:
        return open_options(index);
      case Known::options:
        return spread(index);
      case Known::spread:
        if (!hopeless(candidates_[index])) complete(index);
        return;
      case Known::cut_bound:
        return simulate(index);
      case Known::exact:
        break;
    }
    // Of the placements of one layout only the best is of interest.
    const Layout& layout = candidates_[index].layout.degrees();
    const bool known = std::any_of(best_.begin(), best_.end(), [&](size_t i) {
      return candidates_[i].layout.degrees() == layout;
    });
    if (!known) best_.push_back(index);
  }

  void simulate(size_t index) {
    Candidate& candidate = candidates_[index];
    const bool in_part = candidate.layout.recompute_ranks > 0 && !job_.pins.recompute_ranks;
    if (in_part && fits_without_recomputation(candidate.layout)) return;
    const std::vector<Stage> stages = model_.cut(candidate.layout);
    if (candidate.further == kFirstLook) {
      ++result_.evaluated;
      const auto least =
          trials_.built(candidate.layout, trials_.groups_of(candidate.layout).front());
      if (!fits(candidate, model_.memory(candidate.layout, stages, *least))) return;
    }
    const double most = candidate.seconds * (1 + candidate.further);
    candidate.seconds = most;
    candidate.further *= 2;
    if (const auto best = trials_.fastest(candidate.layout, stages, most)) {
      candidate.seconds = best->seconds;
      candidate.group = best->group;
      candidate.known = Known::exact;
    }
    queue_.push(entry(index));
  }

  // Then there is no reason to recompute on some ranks.
  bool fits_without_recomputation(PlacedLayout layout) {
    layout.recompute = Recompute::none;
    layout.recompute_ranks = 0;
    layout.placement.near = Near::data;  // as good as any: memory is the same
    const auto key = std::make_pair(describe(layout), layout.placement.runs);
    const auto known = fit_.find(key);
    if (known != fit_.end()) return known->second;
    const auto schedule = trials_.built(layout, trials_.groups_of(layout).front());
    const auto memory = model_.memory(layout, model_.cut(layout), *schedule);
    return fit_.emplace(key, trials_.worst_miss(layout, memory).second <= 0).first->second;
  }

  void push(Candidate candidate) {
    candidates_.push_back(std::move(candidate));
    queue_.push(entry(candidates_.size() - 1));
  }

  // Puts all ways to spread the pipeline over the node groups in the place of these options.
  void spread(size_t index) {
    const Candidate options = candidates_[index];
    int64_t order = options.order;
    for (auto& runs : spreads(options.layout, cluster_, sequences_[options.sequence])) {
      Candidate candidate = options;
      candidate.layout.placement.runs = std::move(runs);
      candidate.order = order;
      order += kMostCompletions >> 8;
      candidate.known = Known::spread;
      candidate.seconds = model_.quick_bound(candidate.layout);
      push(std::move(candidate));
    }
  }

  // What the schedules on one cut have in common.
  struct Cut {
    std::vector<Stage> stages;
    CutMemory memory;
    std::vector<std::pair<Near, CutTimes>> times;
  };

  Cut cut_of(PlacedLayout layout, std::vector<Stage> stages) {
    Cut cut;
    cut.stages = std::move(stages);
    cut.memory = model_.cut_memory(layout, cut.stages);
    CutTimes times = model_.cut_times(layout, cut.stages);
    for (const Near near : near_choices(layout, cluster_)) {
      if (near != layout.placement.near) {
        layout.placement.near = near;
        model_.move(layout, cut.stages, times);
      }
      cut.times.emplace_back(near, times);
    }
    return cut;
  }

  // Puts the layouts that this spread stands for in its place, as far as they may fit.
  void complete(size_t index) {
    Candidate candidate = candidates_[index];
    const double least = candidate.seconds;
    candidate.known = Known::cut_bound;
    std::map<std::pair<bool, int>, Cut> cuts;  // the fastest, by V placement and chunks
    std::optional<Cut> smaller;                // that gives way to what a schedule holds
    for (const Completion& completion : choices_.completions(candidate.layout)) {
      candidate.layout.schedule = completion.schedule;
      candidate.layout.chunks = completion.chunks;
      const bool own = options_.schedule != nullptr;
      const auto key = std::make_pair(!own && v_placed(completion.schedule), completion.chunks);
      auto known = cuts.find(key);
      if (known == cuts.end()) {
        std::vector<Stage> fastest = model_.fastest_cut(candidate.layout);
        known = cuts.emplace(key, cut_of(candidate.layout, std::move(fastest))).first;
      }
      const Cut* cut = &known->second;
      const bool may_shrink =
          !own && completion.chunks == 1 && candidate.layout.recompute_ranks == 0;
      if (may_shrink && lacks_at_least(candidate.layout, cut->memory) > 0) {
        auto stages = model_.smaller_cut(candidate.layout, cut->stages, cut->memory);
        if (stages) cut = &smaller.emplace(cut_of(candidate.layout, *std::move(stages)));
      }
      const bool may_fit =
          own ? fits(candidate, model_.memory(candidate.layout, cut->stages, *options_.schedule))
              : may_fit_at_least(candidate, cut->memory);
      if (!may_fit) continue;
      for (const auto& [near, times] : cut->times) {
        candidate.layout.placement.near = near;
        candidate.seconds = std::max(least, model_.cut_bound(candidate.layout, times));
        push(candidate);
        ++candidate.order;
      }
    }
  }

  // Whether the average rank misses more bytes than the closest miss so far: then these degrees
  // neither fit nor are worth naming, and need no schedule to know it.
  bool hopeless(const Candidate& candidate) {
    if (!miss_ || options_.any_memory) return false;
    if (lacks_on_average(candidate.layout) <= miss_->missing_bytes()) return false;
    fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
    if (options_.keep_rejections) {
      result_.rejections.push_back(
          {describe_degrees(candidate.layout),
           fmt::format("parameters, gradients and optimizer state of the average pipeline rank "
                       "take {:.2f} GB of {:.2f} GB",
                       model_.average_resident(candidate.layout) / 1e9,
                       model_.average_device_memory(candidate.layout) / 1e9)});
    }
    return true;
  }

  // Bytes that some device lacks for what any schedule of this name holds; 0 where none does.
  double lacks_at_least(const Layout& layout, const CutMemory& cut) const {
    const std::vector<int> peaks = least_peak_activations(layout.schedule, layout.pipeline,
                                                          layout.chunks, layout.micro_batches);
    double missing = 0;
    for (size_t rank = 0; rank < peaks.size(); ++rank) {
      missing = std::max(missing, cut.least_activation[rank] * peaks[rank] - cut.room[rank]);
    }
    return missing;
  }

  // Whether what any schedule of this name holds fits. A miss is looked at more closely only where
  // it may be told.
  bool may_fit_at_least(const Candidate& candidate, const CutMemory& cut) {
    const double missing = lacks_at_least(candidate.layout, cut);
    if (missing <= 0 || options_.any_memory) return true;
    const bool closest = !miss_ || missing < miss_->missing_bytes();
    if (closest || options_.keep_rejections) {
      return fits(candidate, model_.least_memory(candidate.layout, cut));
    }
    fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
    return false;
  }

  bool fits(const Candidate& candidate, const std::vector<MemoryParts>& memory) {
    const auto [rank, missing] = trials_.worst_miss(candidate.layout, memory);
    if (missing <= 0 || options_.any_memory) return true;
    Miss miss{candidate.layout.degrees(), static_cast<int>(rank), memory[rank],
              model_.device_memory(candidate.layout, static_cast<int>(rank))};
    fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
    if (options_.keep_rejections) {
      result_.rejections.push_back({describe(candidate.layout), reason_of(miss)});
    }
    if (!miss_ || miss.missing_bytes() < miss_->missing_bytes()) miss_ = std::move(miss);
    return false;
  }

  NoPlan nothing_fits() const {
    if (!miss_) return {{}, last_reason_, "no layout fits; " + last_reason_};
    return {miss_, "",
            fmt::format("no layout fits the memory; closest is {}: {}.{}", describe(miss_->layout),
                        reason_of(*miss_), not_tried())};
  }

  const char* not_tried() const {
    const bool cpu = std::any_of(cluster_.groups.begin(), cluster_.groups.end(),
                                 [](const NodeGroup& group) { return group.device.is_cpu(); });
    return cpu ? kNotTried : "";
  }

  Prediction prediction_of(const Candidate& candidate) {
    const std::vector<Stage> stages = model_.cut(candidate.layout);
    return model_.predict(candidate.layout, stages,
                          *trials_.built(candidate.layout, candidate.group));
  }

  // The best of both kinds, fastest first, alike ones plainest first: numbers of best_, then of
  // mixed_.
  std::vector<size_t> ranking() const {
    std::vector<double> seconds;
    for (const size_t index : best_) seconds.push_back(candidates_[index].seconds);
    for (const MixedReplicas& mixed : mixed_) seconds.push_back(mixed.seconds);
    std::vector<size_t> order(seconds.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return seconds[a] < seconds[b]; });
    order.resize(std::min(order.size(), static_cast<size_t>(std::max(1, options_.top))));
    return order;
  }

  void fill_result() {
    const std::vector<size_t> order = ranking();
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i] < best_.size()) {
        const Candidate& next = candidates_[best_[order[i]]];
        result_.alternatives.push_back({next.layout.degrees(), prediction_of(next)});
      } else {
        const MixedReplicas& next = mixed_[order[i] - best_.size()];
        result_.alternatives.push_back({next.layout, predict(model_, trials_, next)});
      }
    }
    result_.plan.cluster = cluster_.name;
    result_.plan.job = job_;
    if (order.front() < best_.size()) {
      fill_plan(candidates_[best_[order.front()]]);
    } else {
      fill_plan(mixed_[order.front() - best_.size()]);
    }
  }

  void fill_plan(const Candidate& chosen) {
    Plan& plan = result_.plan;
    plan.layout = chosen.layout.degrees();
    plan.stages = model_.cut(chosen.layout);
    plan.schedule = *trials_.built(chosen.layout, chosen.group);
    TRIREME_CHECK(check_schedule(plan.schedule).legal);
    plan.prediction = prediction_of(chosen);
    place(chosen.layout);
  }

  void fill_plan(const MixedReplicas& chosen) {
    Plan& plan = result_.plan;
    plan.layout = chosen.layout;
    plan.stages = chosen.stages;
    for (size_t set = 0; set < chosen.sets.size(); ++set) {
      Schedule schedule = *trials_.built(chosen.part(set), chosen.groups[set]);
      TRIREME_CHECK(check_schedule(schedule).legal);
      if (set == 0) {
        plan.schedule = std::move(schedule);
      } else {
        plan.other_schedules.push_back(std::move(schedule));
      }
    }
    plan.prediction = predict(model_, trials_, chosen);
    place(chosen.part(0));
  }

  void place(const PlacedLayout& layout) {
    result_.plan.device = device_names(cluster_, layout.placement);
    result_.plan.placement = placed_ranks(cluster_, layout);
    add_notes(layout);
  }

  void add_notes(const PlacedLayout& layout) {
    if (options_.profile) result_.notes.push_back(model_.basis(layout));
    if (!assumed_.empty()) result_.notes.push_back(assumed_);
    const std::string devices = idle_devices(cluster_, layout, job_.pins.data.has_value());
    if (!devices.empty()) result_.notes.push_back(devices);
    if (fastest_miss_ < result_.plan.prediction.step_seconds) {
      result_.notes.push_back(
          fmt::format("layouts that may be faster do not fit the memory.{}", not_tried()));
    }
    for (std::string& note : idle_groups(cluster_, layout)) {
      result_.notes.push_back(std::move(note));
    }
  }

  const std::string assumed_;
  const Job job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  StepModel model_;
  ScheduleTrials trials_;
  const std::vector<std::vector<size_t>> sequences_;  // of node groups
  Choices choices_;
  std::deque<Candidate> candidates_;
  std::deque<Candidate> set_aside_;  // degrees that cannot fit; of interest where none fits
  int64_t degrees_ = 0;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
  std::vector<size_t> best_;                                      // exact, fastest first
  std::vector<MixedReplicas> mixed_;                              // likewise
  std::map<std::pair<std::string, std::vector<Run>>, bool> fit_;  // by description and runs
  std::optional<Miss> miss_;
  double fastest_miss_ = 1e300;  // lower bound of the fastest layout that did not fit
  std::string last_reason_;
  PlanResult result_;
};

}  // namespace

std::variant<PlanResult, NoPlan> try_plan(const Job& job, const Cluster& cluster,
                                          const PlanOptions& options) {
  return Search(job, cluster, options).run();
}

PlanResult find_plan(const Job& job, const Cluster& cluster, const PlanOptions& options) {
  auto answer = try_plan(job, cluster, options);
  if (const auto* none = std::get_if<NoPlan>(&answer)) {
    throw Error(ErrorKind::no_layout, none->reason);
  }
  return std::get<PlanResult>(std::move(answer));
}

}  // namespace trireme
