#include "planner/synthesis/family_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "planner/schedules/schedules.h"
#include "planner/synthesis/flow.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr double kRounding = 1e-9;
constexpr double kMostActivations = 1e9;

struct Variant {
  std::string name;
  ScheduleRequest request;
};

// The member as it is, with a warm-up for these latencies, with each of the shorter groups and with
// somewhat deeper warm-ups. The memory limit makes it choose within what it has room for.
std::vector<Variant> variants_of(const ScheduleRequest& plain) {
  constexpr size_t kMostGroups = 16;
  std::vector<Variant> variants = {{"", plain}};
  ScheduleRequest latency = plain;
  latency.latency_aware = true;
  if (!why_not(latency)) variants.push_back({"latency-aware", latency});
  for (const auto& group :
       groups_to_try(plain.name, plain.pipeline, plain.micro_batches, kMostGroups)) {
    if (!group || plain.chunks == 1) continue;
    ScheduleRequest grouped = plain;
    grouped.group = group;
    variants.push_back({fmt::format("groups of {}", *group), grouped});
  }
  for (int deeper = 1; deeper <= std::min(plain.pipeline, 8); ++deeper) {
    ScheduleRequest warmed = plain;
    warmed.warm_up = deeper;
    if (why_not(warmed)) break;
    variants.push_back({fmt::format("warm-up {} deeper", deeper), warmed});
  }
  return variants;
}

// Whether its step is one of ordinary training: every gradient, and all of the same weights.
bool trains_a_step(const std::string& name) {
  const Schedule least = make_schedule({.name = name, .pipeline = 1, .micro_batches = 2});
  const auto is_backward = [](const Op& op) { return op.kind != OpKind::forward; };
  return !least.asynchronous &&
         std::any_of(least.ranks.front().begin(), least.ranks.front().end(), is_backward);
}

// The limit in whole activations, which is what the members are built to keep, where all stages
// hold the same.
std::optional<std::vector<int>> in_activations(const AutoRequest& request,
                                               const std::vector<double>& limit) {
  if (!request.memory_limit || request.costs.memory.size() > 1) return std::nullopt;
  std::vector<int> whole;
  for (const double most : limit) {
    const double count = std::floor(most / memory_of(request.costs, 0).activation + kRounding);
    whole.push_back(static_cast<int>(std::clamp(count, 0.0, kMostActivations)));
  }
  return whole;
}

class Family {
 public:
  Family(const AutoRequest& request, const std::vector<double>& limit,
         std::vector<Considered>& considered)
      : request_(request),
        limit_(limit),
        activations_(in_activations(request, limit)),
        considered_(considered) {}

  std::vector<FamilySchedule> run() {
    for (const std::string& name : built_schedules()) {
      const ScheduleRequest plain = plain_request(name);
      if (!trains_a_step(name)) {
        considered_.push_back({name, "", std::nullopt, "is not a synchronous training step"});
      } else if (const auto reason = why_not(plain)) {
        considered_.push_back({name, "", std::nullopt, *reason});
      } else {
        for (const Variant& variant : variants_of(plain)) try_variant(name, variant);
      }
    }
    return std::move(family_);
  }

 private:
  ScheduleRequest plain_request(const std::string& name) const {
    ScheduleRequest plain;
    plain.name = name;
    plain.pipeline = request_.pipeline;
    plain.micro_batches = request_.micro_batches;
    plain.chunks = request_.chunks;
    plain.costs = request_.costs;
    return plain;
  }

  // As it is where that keeps the limit, else as it can be built to keep it.
  void try_variant(const std::string& name, const Variant& variant) {
    Considered considered{name, variant.name, std::nullopt, ""};
    Schedule schedule = make_schedule(variant.request);
    considered.why_not = above_limit(schedule, request_.costs, limit_);
    if (!considered.why_not.empty() && activations_) {
      ScheduleRequest limited = variant.request;
      limited.memory_limit = activations_;
      try {
        schedule = make_schedule(limited);
        considered.why_not = above_limit(schedule, request_.costs, limit_);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::bad_input) throw;
      }
    }
    if (considered.why_not.empty()) {
      considered.makespan = makespan_of(schedule, request_.costs);
      family_.push_back({considered.name(), std::move(schedule), *considered.makespan});
    }
    considered_.push_back(std::move(considered));
  }

  const AutoRequest& request_;
  const std::vector<double>& limit_;
  const std::optional<std::vector<int>> activations_;
  std::vector<Considered>& considered_;
  std::vector<FamilySchedule> family_;
};

}  // namespace

std::string above_limit(const Schedule& schedule, const Costs& costs,
                        const std::vector<double>& limit) {
  const std::vector<double> peaks = simulate(schedule, costs).peak_memory;
  for (size_t rank = 0; rank < limit.size(); ++rank) {
    if (peaks[rank] <= limit[rank] * (1 + kRounding)) continue;
    return fmt::format("rank {} holds {:.6g}{}, above the limit of {:.6g}", rank, peaks[rank],
                       costs.memory.empty() ? " chunk activations" : " of memory", limit[rank]);
  }
  return "";
}

std::vector<FamilySchedule> family_within(const AutoRequest& request,
                                          const std::vector<double>& limit,
                                          std::vector<Considered>& considered) {
  return Family(request, limit, considered).run();
}

}  // namespace trireme
