#include "planner/explain.h"

#include <algorithm>
#include <limits>

#include "topology/base/error.h"

namespace trireme {
namespace {

double seconds_of(const Prediction& prediction, const std::string& cause) {
  for (const auto& [name, seconds] : prediction.breakdown) {
    if (name == cause) return seconds;
  }
  return 0;
}

Job with_pins(const Job& job, const Pins& pins) {
  Job pinned = job;
  pinned.pins = pins;
  return pinned;
}

using ProfilePointer = std::shared_ptr<const Profile>;

std::variant<PlanResult, NoPlan> fastest(const Job& job, const Cluster& cluster,
                                         const ProfilePointer& profile) {
  PlanOptions options;
  options.top = 1;
  options.profile = profile;
  return try_plan(job, cluster, options);
}

// What a layout would take on devices of endless memory.
std::optional<Prediction> without_limit(Job job, Cluster cluster, const Layout& layout,
                                        const ProfilePointer& profile) {
  job.pins = {.tensor = layout.tensor,
              .pipeline = layout.pipeline,
              .data = layout.data,
              .chunks = layout.chunks,
              .micro_batch = layout.micro_batch,
              .optimizer_sharding = layout.optimizer_sharding,
              .schedule = layout.schedule,
              .sequence_parallel = layout.sequence_parallel,
              .recompute = layout.recompute,
              .recompute_ranks = layout.recompute_ranks,
              .even_cut = job.pins.even_cut};
  for (NodeGroup& group : cluster.groups) {
    group.device.memory_bytes = std::numeric_limits<double>::infinity();
  }
  auto answer = fastest(job, cluster, profile);
  const auto* result = std::get_if<PlanResult>(&answer);
  return result == nullptr ? std::nullopt : std::optional(result->plan.prediction);
}

// The pins that save memory, alone; all together where none alone is enough.
std::vector<Remedy> find_remedies(const Job& job, const Cluster& cluster, const Pins& pins,
                                  const ProfilePointer& profile) {
  std::vector<Remedy> remedies;
  const auto add = [&](const std::vector<const char*>& savers) {
    Pins saving = pins;
    std::string names;
    for (const char* saver : savers) {
      set_pin(saving, saver);
      names += (names.empty() ? "" : " ") + std::string(saver);
    }
    if (saving == pins) return;
    auto answer = fastest(with_pins(job, saving), cluster, profile);
    if (const auto* result = std::get_if<PlanResult>(&answer)) {
      remedies.push_back({names, {result->plan.layout, result->plan.prediction}});
    }
  };
  add({"recompute=full"});
  add({"sequence_parallel=true"});
  add({"optimizer_sharding=1"});
  if (remedies.empty()) {
    add({"recompute=full", "sequence_parallel=true", "optimizer_sharding=1"});
  }
  return remedies;
}

}  // namespace

std::vector<CauseChange> changes_by_cause(const Prediction& from, const Prediction& to) {
  std::vector<CauseChange> changes;
  for (const auto& [cause, seconds] : to.breakdown) {
    changes.push_back({cause, seconds - seconds_of(from, cause)});
  }
  for (const auto& [cause, seconds] : from.breakdown) {
    const bool known =
        std::any_of(changes.begin(), changes.end(),
                    [&name = cause](const CauseChange& c) { return c.cause == name; });
    if (!known) changes.push_back({cause, -seconds});
  }
  std::stable_sort(changes.begin(), changes.end(), [](const CauseChange& a, const CauseChange& b) {
    return a.seconds > b.seconds;
  });
  return changes;
}

Explanation explain(const Job& job, const Cluster& cluster, const PlanResult& result,
                    const Pins& pins, const std::shared_ptr<const Profile>& profile) {
  Explanation explanation;
  const Job pinned = with_pins(job, pins);
  std::variant<PlanResult, NoPlan> answer;
  try {
    answer = fastest(pinned, cluster, profile);
  } catch (const Error& error) {
    explanation.standing = Standing::impossible;
    explanation.rule = error.what();
    return explanation;
  }
  if (const auto* none = std::get_if<NoPlan>(&answer)) {
    explanation.standing = none->closest ? Standing::does_not_fit : Standing::impossible;
    explanation.rule = none->rule;
    explanation.miss = none->closest;
    if (!none->closest) return explanation;
    explanation.unfit = without_limit(pinned, cluster, none->closest->layout, profile);
    explanation.remedies = find_remedies(job, cluster, pins, profile);
    return explanation;
  }
  const Plan& plan = result.plan;
  const Plan& other = std::get<PlanResult>(answer).plan;
  explanation.best = {other.layout, other.prediction};
  explanation.changes = changes_by_cause(plan.prediction, other.prediction);
  constexpr double kRounding = 1 - 1e-9;
  const bool faster = other.prediction.step_seconds < plan.prediction.step_seconds * kRounding;
  explanation.standing = other.layout == plan.layout ? Standing::chosen
                         : faster                    ? Standing::faster
                                                     : Standing::slower;
  return explanation;
}

std::vector<std::pair<std::string, double>> named_parts(const MemoryParts& parts) {
  return {{"parameters", parts.parameters},
          {"gradients", parts.gradients},
          {"optimizer", parts.optimizer},
          {"activations", parts.activations},
          {"reserve", parts.reserve}};
}

}  // namespace trireme
