#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "planner/search.h"
#include "topology/cluster.h"

namespace trireme {

// A job planned again on a changed cluster: what `trireme plan --what-if` and `--sweep` show.
struct Replan {
  std::string name;  // "nic_gbps=800", or a sweep's value
  Cluster cluster;
  std::variant<PlanResult, NoPlan> answer;

  const Plan* plan() const;  // nullptr where there is none
};

// What "nodes=8..128" or "device=A,B" asks for: the key, and its values. A range doubles from its
// first value as long as it stays below its last. Throws Error(bad_input).
struct Sweep {
  std::string key;
  std::vector<std::string> values;
};
Sweep parse_sweep(const std::string& text);

// Side by side, the first the cluster as it is; at most 100 columns.
std::string what_if_table(const std::vector<Replan>& plans);
// A line for each value.
std::string sweep_table(const Sweep& sweep, const std::vector<Replan>& plans);
std::string sweep_svg(const Sweep& sweep, const std::vector<Replan>& plans);

// [{"name", "layout", "prediction", "cost_per_million_tokens"} or {"name", "no_plan": reason}]
nlohmann::ordered_json replans_json(const std::vector<Replan>& plans);

}  // namespace trireme
