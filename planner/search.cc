#include "planner/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <queue>
#include <tuple>
#include <utility>

#include "planner/assumptions.h"
#include "planner/candidates.h"
#include "planner/checker.h"
#include "planner/idle.h"
#include "planner/layout_text.h"
#include "planner/look_ahead.h"
#include "planner/lookout.h"
#include "planner/schedules/schedule_cache.h"
#include "topology/base/check.h"
#include "topology/base/cores.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr const char* kNotTried =
    " Not tried on CPU nodes unless pinned: recompute=full, sequence_parallel=true, "
    "optimizer_sharding=1";

constexpr size_t kMostRejections = 10000;  // that anybody could read
constexpr double kNever = std::numeric_limits<double>::infinity();

std::string reason_of(const Miss& miss) {
  const MemoryParts& parts = miss.needed;
  return fmt::format(
      "pipeline rank {} lacks {:.2f} GB: {:.2f} GB needed (parameters {:.2f}, gradients {:.2f}, "
      "optimizer {:.2f}, activations {:.2f}, reserve {:.2f}) of {:.2f} GB",
      miss.pipeline_rank, miss.missing_bytes() / 1e9, parts.total() / 1e9, parts.parameters / 1e9,
      parts.gradients / 1e9, parts.optimizer / 1e9, parts.activations / 1e9, parts.reserve / 1e9,
      miss.device_bytes / 1e9);
}

// A layout of unequal replicas is the same on its sets in any order, and however many micro-batches
// each takes.
bool same_but_for_shares(const PlacedLayout& a, const PlacedLayout& b) {
  const auto described = [](const PlacedLayout& placed) {
    std::pair result(placed.degrees(), placed.placement.sets);
    if (result.second.empty()) return result;
    result.first.micro_batches = 0;
    result.first.shares.clear();
    std::sort(result.second.begin(), result.second.end());
    return result;
  };
  return described(a) == described(b);
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
        sequences_(group_sequences(cluster)),
        lookout_(job_, cluster_, options_, sequences_, schedules_, timings_,
                 [this](const std::string& layout, const std::string& reason) {
                   reject(layout, reason);
                 }),
        ahead_(more_lookouts()) {}

  std::variant<PlanResult, NoPlan> run() {
    const double begin = options_.clock ? options_.clock() : 0;
    check_pins(job_, cluster_);
    enumerate();
    look_at_the_best();
    if (best_.empty()) {
      find_closest_miss();
      return nothing_fits();
    }
    fill_result();
    ahead_.end();
    if (options_.clock) result_.seconds = options_.clock() - begin;
    return std::move(result_);
  }

 private:
  // The number is the position in candidates_. Where the closest miss is sought, bytes stand in the
  // place of the seconds.
  using Entry = LookAhead::Entry;

  // Rejections are the affair of the search's own, which has asked for the completions of all
  // degrees before another does.
  std::vector<std::unique_ptr<Lookout>> more_lookouts() {
    std::vector<std::unique_ptr<Lookout>> lookouts;
    for (int i = 1; i < search_threads(options_); ++i) {
      lookouts.push_back(std::make_unique<Lookout>(job_, cluster_, options_, sequences_, schedules_,
                                                   timings_,
                                                   [](const std::string&, const std::string&) {}));
    }
    return lookouts;
  }

  // Where nothing comes of any layout, the one that came furthest, so that says most, tells why.
  void reject(const std::string& layout, const std::string& reason) {
    const auto settled = std::count(layout.begin(), layout.end(), '=');
    if (settled > most_settled_) {
      most_settled_ = settled;
      reason_ = layout + ": " + reason;
    }
    if (options_.keep_rejections) keep({layout, reason});
  }

  void keep(Rejection rejection) {
    Rejections& kept = result_.rejections;
    if (kept.first.size() < kMostRejections) {
      kept.first.push_back(std::move(rejection));
    } else {
      ++kept.more;
    }
  }

  // What takes forever does not fit.
  void look_at_the_best() {
    while (best_.size() < wanted()) {
      fill_ahead();
      const std::optional<Entry> ahead = ahead_.least();
      if (ahead && (queue_.empty() || *ahead < queue_.top())) {
        advance_ahead(*ahead);
      } else if (!queue_.empty() && std::get<double>(queue_.top()) < kNever) {
        advance_next();
      } else {
        break;
      }
    }
    ahead_.clear();
  }

  void advance_next() {
    const auto next = std::get<size_t>(queue_.top());
    queue_.pop();
    advance(next);
  }

  // Among those that were set aside or take forever, by what they lack at least.
  void find_closest_miss() {
    by_missing_bytes_ = true;
    std::vector<size_t> left;
    for (; !queue_.empty(); queue_.pop()) left.push_back(std::get<size_t>(queue_.top()));
    for (const size_t index : left) push(index);
    for (Candidate& candidate : set_aside_) push(std::move(candidate));
    while (!queue_.empty() && std::get<double>(queue_.top()) < closest()) advance_next();
  }

  void fill_ahead() {
    for (size_t room = ahead_.room(); room > 0 && !queue_.empty(); --room) {
      const Candidate& next = candidates_[std::get<size_t>(queue_.top())];
      // To spread a pipeline takes less than to have a thread do it.
      const bool at_once = next.known == Known::exact || next.known == Known::options;
      if (at_once || next.seconds == kNever) return;
      ahead_.add(queue_.top(), next, enough());
      queue_.pop();
    }
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
    const size_t alike = candidates_.size();
    for (Candidate& candidate : lookout_.replicas().degrees((degrees_ + 1) * kMostOfDegrees)) {
      result_.considered += lookout_.replicas().layouts(candidate);
      candidates_.push_back(std::move(candidate));
    }
    std::vector<Entry> entries;
    entries.reserve(candidates_.size());
    for (size_t i = options_.keep_rejections ? alike : 0; i < candidates_.size(); ++i) {
      entries.push_back(entry(i));
    }
    queue_ = decltype(queue_)(std::greater<>(), std::move(entries));
    if (options_.keep_rejections) look_at_all(alike);
  }

  void add_degrees(const Layout& layout, size_t sequence) {
    const size_t count = lookout_.completions(layout).size();
    if (count == 0) return;
    const size_t options = lookout_.options(layout, sequence).size();
    result_.considered += static_cast<int64_t>(count * options);
    candidates_.push_back(lookout_.degrees(layout, sequence, ++degrees_ * kMostOfDegrees));
  }

  // On nodes of one kind every layout's memory is looked at, fast or slow, so that all reasons can
  // be listed.
  void look_at_all(size_t degrees) {
    for (size_t i = 0; i < degrees; ++i) {
      for (Candidate& candidate : lookout_.with_options(candidates_[i])) {
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

  Entry entry(size_t index) {
    const Candidate& candidate = candidates_[index];
    const double first = by_missing_bytes_ ? lookout_.lacks_at_least(candidate) : candidate.seconds;
    return {first, candidate.order, index};
  }

  void advance(size_t index) {
    const Candidate& candidate = candidates_[index];
    if (candidate.known == Known::exact) return keep(index);
    if (!needless(candidate)) take_in(index, lookout_.look(candidate, enough()));
  }

  void advance_ahead(const Entry& entry) {
    const auto index = std::get<size_t>(entry);
    if (needless(candidates_[index])) return ahead_.drop(entry);
    take_in(index, ahead_.take(entry, lookout_));
  }

  void keep(size_t index) {
    if (!is_kept(candidates_[index])) best_.push_back(index);
  }

  // Of the placements and shares of one layout only the best is of interest.
  bool is_kept(const Candidate& candidate) const {
    return std::any_of(best_.begin(), best_.end(), [&](size_t index) {
      return same_but_for_shares(candidates_[index].layout, candidate.layout);
    });
  }

  bool needless(const Candidate& candidate) {
    const bool completed = candidate.known == Known::shares || candidate.known == Known::cut ||
                           candidate.known == Known::links;
    return completed ? is_kept(candidate) : hopeless(candidate);
  }

  // Puts what a look has found in the place of the candidate.
  void take_in(size_t index, Look look) {
    result_.evaluated += look.first_simulation ? 1 : 0;
    for (Look::Missed& missed : look.missed) note(std::move(missed));
    for (Candidate& candidate : look.set_aside) {
      fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
      set_aside_.push_back(std::move(candidate));
    }
    bool first = true;
    for (Candidate& candidate : look.found) {
      if (std::exchange(first, false)) {
        candidates_[index] = std::move(candidate);
        push(index);
      } else {
        push(std::move(candidate));
      }
    }
  }

  void push(Candidate candidate) {
    candidates_.push_back(std::move(candidate));
    push(candidates_.size() - 1);
  }

  void push(size_t index) {
    const Entry next = entry(index);
    if (by_missing_bytes_ && std::get<double>(next) >= closest()) return;
    queue_.push(next);
    if (candidates_[index].known == Known::exact) rank(index);
  }

  // Among the fastest layouts that are known exactly, each at its best, as many as are asked for.
  void rank(size_t index) {
    const auto seconds = [this](size_t i) { return candidates_[i].seconds; };
    const auto same = std::find_if(fastest_.begin(), fastest_.end(), [&](size_t i) {
      return same_but_for_shares(candidates_[i].layout, candidates_[index].layout);
    });
    if (same == fastest_.end()) {
      fastest_.push_back(index);
    } else if (seconds(index) < seconds(*same)) {
      *same = index;
    }
    std::sort(fastest_.begin(), fastest_.end(),
              [&](size_t a, size_t b) { return seconds(a) < seconds(b); });
    if (fastest_.size() > wanted()) fastest_.pop_back();
  }

  size_t wanted() const { return static_cast<size_t>(std::max(1, options_.top)); }

  // Bytes that the closest miss so far lacks.
  double closest() const { return miss_ ? miss_->missing_bytes() : kNever; }

  Enough enough() const {
    Enough result{.missing = closest()};
    if (fastest_.size() == wanted()) result.seconds = candidates_[fastest_.back()].seconds;
    return result;
  }

  void note(Look::Missed missed) {
    fastest_miss_ = std::min(fastest_miss_, missed.seconds);
    // A look that was taken earlier told more than one that is taken now.
    const bool told = missed.at_least < closest() || options_.keep_rejections;
    if (!missed.miss || !told) return;
    if (options_.keep_rejections) {
      keep({describe(missed.miss->layout), reason_of(*missed.miss)});
    }
    if (missed.miss->missing_bytes() < closest()) miss_ = std::move(missed.miss);
  }

  // Whether the average rank misses more bytes than the closest miss so far: then these degrees
  // neither fit nor are worth naming, and need no schedule to know it.
  bool hopeless(const Candidate& candidate) {
    const bool open = candidate.known == Known::spread || candidate.known == Known::paths;
    if (!open || candidate.unequal()) return false;
    if (options_.any_memory) return false;
    if (lookout_.lacks_on_average(candidate.layout) <= closest()) return false;
    fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
    if (options_.keep_rejections) {
      StepModel& model = lookout_.model();
      keep({describe_degrees(candidate.layout),
            fmt::format("parameters, gradients and optimizer state of the average pipeline rank "
                        "take {:.2f} GB of {:.2f} GB",
                        model.average_resident(candidate.layout) / 1e9,
                        model.average_device_memory(candidate.layout) / 1e9)});
    }
    return true;
  }

  NoPlan nothing_fits() {
    NoPlan none;
    none.closest = miss_;
    none.rejections = std::move(result_.rejections);
    if (miss_) {
      none.reason = fmt::format("no layout fits the memory; closest is {}: {}.{}",
                                describe(miss_->layout), reason_of(*miss_), not_tried());
    } else {
      none.rule = reason_;
      none.reason = "no layout fits; " + reason_;
    }
    return none;
  }

  const char* not_tried() const {
    const bool cpu = std::any_of(cluster_.groups.begin(), cluster_.groups.end(),
                                 [](const NodeGroup& group) { return group.device.is_cpu(); });
    return cpu ? kNotTried : "";
  }

  void fill_result() {
    for (const size_t index : best_) {
      candidates_[index].in_full = index == best_.front();
      ahead_.add(entry(index), candidates_[index], enough());
    }
    result_.plan.cluster = cluster_.name;
    result_.plan.job = job_;
    fill_plan(best_.front());
    for (size_t i = 1; i < best_.size(); ++i) {
      const size_t index = best_[i];
      result_.alternatives.push_back({candidates_[index].layout.degrees(), prediction_of(index)});
    }
  }

  Prediction prediction_of(size_t index) {
    return *std::move(ahead_.take(entry(index), lookout_).prediction);
  }

  void fill_plan(size_t index) {
    const Candidate& chosen = candidates_[index];
    Plan& plan = result_.plan;
    plan.layout = chosen.layout.degrees();
    plan.stages = lookout_.cut(chosen);
    const std::vector<PlacedLayout> parts = parts_of(chosen.layout);
    for (size_t i = 0; i < parts.size(); ++i) {
      Schedule schedule = *lookout_.trials().built(parts[i], chosen.groups[i]);
      TRIREME_CHECK(check_schedule(schedule).legal);
      if (i == 0) {
        plan.schedule = std::move(schedule);
      } else {
        plan.other_schedules.push_back(std::move(schedule));
      }
    }
    plan.prediction = prediction_of(index);
    place(chosen.layout);
  }

  void place(const PlacedLayout& layout) {
    result_.plan.device = device_names(cluster_, layout.placement);
    result_.plan.placement = placed_ranks(cluster_, layout);
    add_notes(layout);
  }

  void add_notes(const PlacedLayout& layout) {
    if (options_.profile) result_.notes.push_back(lookout_.model().basis(layout));
    if (!assumed_.empty()) result_.notes.push_back(assumed_);
    for (std::string& note : device_notes(job_, cluster_, groups_in_use(layout.placement))) {
      result_.notes.push_back(std::move(note));
    }
    const std::string devices = idle_devices(cluster_, layout, job_.pins);
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
  const std::vector<std::vector<size_t>> sequences_;  // of node groups
  ScheduleCache schedules_;
  const std::shared_ptr<KnownTimings> timings_ = std::make_shared<KnownTimings>();
  Lookout lookout_;
  LookAhead ahead_;
  std::deque<Candidate> candidates_;
  std::deque<Candidate> set_aside_;  // degrees that cannot fit; of interest where none fits
  int64_t degrees_ = 0;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
  std::vector<size_t> fastest_;  // of those known exactly so far, perhaps in line, fastest first
  std::vector<size_t> best_;     // of all, fastest first
  std::optional<Miss> miss_;
  bool by_missing_bytes_ = false;  // in line, as nothing fits
  double fastest_miss_ = 1e300;    // lower bound of the fastest layout that did not fit
  std::string reason_;             // of a layout that cannot be, with as many choices settled
  std::ptrdiff_t most_settled_ = 0;
  PlanResult result_;
};

}  // namespace

int search_threads(const PlanOptions& options) {
  constexpr int kMostUseful = 8;
  if (options.keep_rejections) return 1;
  return options.threads > 0 ? options.threads : std::min(usable_cores(), kMostUseful);
}

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
