#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "planner/search.h"

namespace trireme {

// Why a plan is as it is: comparisons of what find_plan found with what else could have been.
// Everything is computed with the planner's own model; nothing is measured.

// By how many seconds a cause takes more of one step than of another.
struct CauseChange {
  std::string cause;  // a name of Prediction::breakdown
  double seconds = 0;
};

// `to` less `from`, the largest growth first. The changes sum to the difference of the steps.
std::vector<CauseChange> changes_by_cause(const Prediction& from, const Prediction& to);

enum class Standing { chosen, slower, faster, does_not_fit, impossible };

// One of the pins that save memory, and the fastest layout that fits once it is set too.
struct Remedy {
  std::string pins;
  Alternative best;
};

// How the layouts with some pins stand against a plan.
struct Explanation {
  Standing standing = Standing::chosen;
  std::optional<Alternative> best;   // the fastest of them that fits the memory
  std::vector<CauseChange> changes;  // from the plan to `best`
  std::optional<Miss> miss;          // does_not_fit: the closest of them to fitting
  std::optional<Prediction> unfit;   // what its step would be if its memory were enough
  std::vector<Remedy> remedies;      // what would make them fit; empty: nothing of that kind does
  std::string rule;                  // impossible: what forbids them all
};

// What the layouts with `pins` on top of those of the job would do. `result` is the job's plan on
// this cluster, made with this profile. Throws nothing for pins that contradict each other: that is
// an explanation.
Explanation explain(const Job& job, const Cluster& cluster, const PlanResult& result,
                    const Pins& pins, const std::shared_ptr<const Profile>& profile = nullptr);

// The bytes of a device by what they are for, in printing order.
std::vector<std::pair<std::string, double>> named_parts(const MemoryParts& parts);

}  // namespace trireme
