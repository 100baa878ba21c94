#include "planner/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <tuple>

#include "planner/candidates.h"
#include "planner/checker.h"
#include "planner/cost/step.h"
#include "planner/schedules/schedules.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr const char* kNotTried =
    " Not tried on CPU nodes unless pinned: recompute=full, sequence_parallel=true, "
    "optimizer_sharding=1";

// Interleaved groups that are tried for a layout. Longer ones gain next to nothing and hold ever
// more activations.
constexpr size_t kMostGroups = 8;

// How much is known of a candidate: more costs more to find out. `degrees` stands for all layouts
// that complete it with a schedule and chunks; its seconds bound them all from below.
enum class Known { degrees, cut_bound, exact };

struct Candidate {
  Layout layout;
  size_t group = 0;
  // Among candidates of equal seconds the first in the order of enumeration is the better one.
  int64_t order = 0;
  double seconds = 0;  // a lower bound, or the prediction
  Known known = Known::degrees;
};

// More than a choice of degrees can have completions.
constexpr int64_t kMostCompletions = int64_t{1} << 24;

// What a layout has besides degrees and schedule.
std::string describe_options(const Layout& layout) {
  std::string text;
  if (layout.recompute != Recompute::none) {
    text += fmt::format(" recompute={}", name_of(layout.recompute));
  }
  if (layout.sequence_parallel) text += " sequence_parallel=true";
  if (layout.optimizer_sharding > 0) {
    text += fmt::format(" optimizer_sharding={}", layout.optimizer_sharding);
  }
  return text;
}

std::string describe_degrees(const Layout& layout) {
  return fmt::format("tensor={} pipeline={} data={} micro_batch={}{}", layout.tensor,
                     layout.pipeline, layout.data, layout.micro_batch, describe_options(layout));
}

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
      : job_(job), cluster_(cluster), options_(options) {
    models_.reserve(cluster.groups.size());
    for (size_t g = 0; g < cluster.groups.size(); ++g) {
      models_.emplace_back(job, cluster, g, options.profile.get());
    }
  }

  std::variant<PlanResult, NoPlan> run() {
    const double begin = options_.clock ? options_.clock() : 0;
    check_pins(job_);
    enumerate();
    while (!queue_.empty() && static_cast<int>(best_.size()) < std::max(1, options_.top)) {
      const size_t next = std::get<size_t>(queue_.top());
      queue_.pop();
      advance(next);
    }
    if (best_.empty()) return nothing_fits();
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

  void enumerate() {
    for (size_t g = 0; g < models_.size(); ++g) {
      const CandidateSinks sinks{
          [&](const Layout& layout) { add_degrees(layout, g); },
          [&](const std::string& layout, const std::string& reason) { reject(layout, reason); }};
      enumerate_degrees(job_, cluster_.groups[g], sinks);
    }
    if (options_.keep_rejections) return look_at_all();
    std::vector<Entry> entries;
    entries.reserve(candidates_.size());
    for (size_t i = 0; i < candidates_.size(); ++i) entries.push_back(entry(i));
    queue_ = decltype(queue_)(std::greater<>(), std::move(entries));
  }

  void add_degrees(const Layout& layout, size_t group) {
    const size_t count = completions_of(layout).size();
    if (count == 0) return;
    result_.considered += static_cast<int64_t>(count);
    candidates_.push_back({layout, group, ++degrees_ * kMostCompletions,
                           models_[group].quick_bound(layout), Known::degrees});
  }

  const std::vector<Completion>& completions_of(const Layout& layout) {
    const auto key = std::make_pair(layout.pipeline, layout.micro_batches);
    const auto known = completions_.find(key);
    if (known != completions_.end()) return known->second;
    const CandidateSinks sinks{
        {}, [&](const std::string& name, const std::string& reason) { reject(name, reason); }};
    return completions_
        .emplace(key, completions(job_, layout.pipeline, layout.micro_batches, sinks))
        .first->second;
  }

  // Every layout's memory is looked at, fast or slow, so that all reasons can be listed.
  void look_at_all() {
    const size_t degrees = candidates_.size();
    for (size_t i = 0; i < degrees; ++i) advance(i);
  }

  Entry entry(size_t index) const {
    return {candidates_[index].seconds, candidates_[index].order, index};
  }

  void advance(size_t index) {
    Candidate& candidate = candidates_[index];
    StepModel& model = models_[candidate.group];
    switch (candidate.known) {
      case Known::exact:
        best_.push_back(index);
        return;
      case Known::degrees:
        if (!hopeless(candidate)) complete(index);
        return;
      case Known::cut_bound:
        break;
    }
    const std::vector<Stage> stages = model.cut(candidate.layout);
    const Schedule schedule = schedule_of(candidate, stages);
    ++result_.evaluated;
    if (!fits(candidate, model.memory(candidate.layout, stages, schedule))) return;
    candidate.known = Known::exact;
    Prediction prediction = model.predict(candidate.layout, stages, schedule);
    candidate.seconds = prediction.step_seconds;
    predictions_.emplace(index, std::move(prediction));
    queue_.push(entry(index));
  }

  // Puts the layouts that these degrees stand for in their place, as far as they may fit.
  void complete(size_t index) {
    const Candidate degrees = candidates_[index];
    StepModel& model = models_[degrees.group];
    int64_t order = degrees.order;
    std::map<std::pair<bool, int>, std::pair<std::vector<Stage>, CutMemory>> cuts;  // by placement
    for (const Completion& completion : completions_of(degrees.layout)) {
      Candidate candidate = degrees;
      candidate.layout.schedule = completion.schedule;
      candidate.layout.chunks = completion.chunks;
      candidate.order = order++;
      candidate.known = Known::cut_bound;
      const auto [known, is_new] =
          cuts.try_emplace({v_placed(completion.schedule), completion.chunks});
      auto& [stages, memory] = known->second;
      if (is_new) {
        stages = model.cut(candidate.layout);
        memory = model.cut_memory(candidate.layout, stages);
      }
      if (!fits(candidate, model.least_memory(candidate.layout, memory))) continue;
      candidate.seconds = std::max(candidate.seconds, model.cut_bound(candidate.layout, stages));
      candidates_.push_back(std::move(candidate));
      queue_.push(entry(candidates_.size() - 1));
    }
  }

  // Whether the average rank misses more bytes than the closest miss so far: then these degrees
  // neither fit nor are worth naming, and need no schedule to know it.
  bool hopeless(const Candidate& candidate) {
    if (!miss_) return false;
    const StepModel& model = models_[candidate.group];
    const double resident = model.average_resident(candidate.layout);
    if (resident - model.device_memory() <= miss_->missing_bytes()) return false;
    fastest_miss_ = std::min(fastest_miss_, candidate.seconds);
    if (options_.keep_rejections) {
      result_.rejections.push_back(
          {describe_degrees(candidate.layout),
           fmt::format("parameters, gradients and optimizer state of the average pipeline rank "
                       "take {:.2f} GB of {:.2f} GB",
                       resident / 1e9, model.device_memory() / 1e9)});
    }
    return true;
  }

  // The fastest variant that fits; if none does, the first, which holds least.
  Schedule schedule_of(const Candidate& candidate, const std::vector<Stage>& stages) {
    const Layout& layout = candidate.layout;
    StepModel& model = models_[candidate.group];
    const Costs costs = model.costs(layout, stages);
    const auto groups =
        groups_to_try(layout.schedule, layout.pipeline, layout.micro_batches, kMostGroups);
    Schedule best;
    double least = 0;
    for (const std::optional<int>& group : groups) {
      Schedule schedule = make_schedule({.name = layout.schedule,
                                         .pipeline = layout.pipeline,
                                         .micro_batches = layout.micro_batches,
                                         .chunks = layout.chunks,
                                         .group = group,
                                         .costs = costs});
      if (groups.size() == 1) return schedule;
      if (!best.ranks.empty() && missing_bytes(model, model.memory(layout, stages, schedule)) > 0) {
        break;  // longer groups hold more
      }
      const double makespan = makespan_of(schedule, costs);
      if (best.ranks.empty() || makespan * (1 + 1e-9) < least) {
        best = std::move(schedule);
        least = makespan;
      }
    }
    return best;
  }

  static size_t fullest_rank(const std::vector<MemoryParts>& memory) {
    const auto less = [](const MemoryParts& a, const MemoryParts& b) {
      return a.total() < b.total();
    };
    return static_cast<size_t>(std::max_element(memory.begin(), memory.end(), less) -
                               memory.begin());
  }

  // Beyond the device's memory on the fullest pipeline rank; negative when all is well.
  static double missing_bytes(const StepModel& model, const std::vector<MemoryParts>& memory) {
    return memory[fullest_rank(memory)].total() - model.device_memory();
  }

  bool fits(const Candidate& candidate, const std::vector<MemoryParts>& memory) {
    const size_t fullest = fullest_rank(memory);
    Miss miss{candidate.layout, static_cast<int>(fullest), memory[fullest],
              models_[candidate.group].device_memory()};
    if (miss.missing_bytes() <= 0) return true;
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

  void fill_result() {
    const Candidate& chosen = candidates_[best_.front()];
    for (size_t i = 1; i < best_.size(); ++i) {
      result_.alternatives.push_back(
          {candidates_[best_[i]].layout, std::move(predictions_.at(best_[i]))});
    }
    StepModel& model = models_[chosen.group];
    Plan& plan = result_.plan;
    plan.cluster = cluster_.name;
    plan.device = model.nodes().device.name;
    plan.job = job_;
    plan.layout = chosen.layout;
    plan.stages = model.cut(chosen.layout);
    plan.schedule = schedule_of(chosen, plan.stages);
    TRIREME_CHECK(check_schedule(plan.schedule).legal);
    const NodeGroup& nodes = model.nodes();
    for (int rank = 0; rank < plan.layout.ranks(); ++rank) {
      plan.placement.push_back(
          {nodes.hosts[static_cast<size_t>(rank / nodes.devices)], rank % nodes.devices});
    }
    plan.prediction = std::move(predictions_.at(best_.front()));
    add_notes(chosen.group);
  }

  void add_notes(size_t group) {
    if (options_.profile) result_.notes.push_back(models_[group].basis(result_.plan.layout));
    const int used = result_.plan.layout.ranks(), there = models_[group].device_count();
    if (used < there) {
      result_.notes.push_back(fmt::format(
          "{} of {} devices are used{}", used, there,
          job_.pins.data ? ", as pinned"
                         : "; no layout with more that fits is faster for this batch and model"));
    }
    if (fastest_miss_ < result_.plan.prediction.step_seconds) {
      result_.notes.push_back(
          fmt::format("layouts that may be faster do not fit the memory.{}", not_tried()));
    }
    for (size_t g = 0; g < cluster_.groups.size(); ++g) {
      if (g == group) continue;
      const NodeGroup& idle = cluster_.groups[g];
      result_.notes.push_back(
          fmt::format("{} nodes with {} x {} ({} to {}) stay idle: a plan uses one kind of node",
                      idle.hosts.size(), idle.devices, idle.device.name, idle.hosts.front(),
                      idle.hosts.back()));
    }
  }

  const Job& job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  std::vector<StepModel> models_;  // by node group
  std::vector<Candidate> candidates_;
  int64_t degrees_ = 0;
  // By pipeline and micro-batches.
  std::map<std::pair<int, int>, std::vector<Completion>> completions_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
  std::map<size_t, Prediction> predictions_;  // of the candidates whose seconds are exact
  std::vector<size_t> best_;                  // exact, fastest first
  std::optional<Miss> miss_;
  double fastest_miss_ = 1e300;  // lower bound of the fastest layout that did not fit
  std::string last_reason_;
  PlanResult result_;
};

}  // namespace

std::string describe(const Layout& layout) {
  return fmt::format("tensor={} pipeline={} data={} chunks={} micro_batch={} schedule={}{}",
                     layout.tensor, layout.pipeline, layout.data, layout.chunks, layout.micro_batch,
                     layout.schedule, describe_options(layout));
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
