#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "planner/explain.h"
#include "planner/search.h"

namespace trireme {

// How commands show plans: tables for people, at most 100 columns, and the JSON of docs/planner.md.
// `cluster` is the plan's; without it a table lacks what only the cluster knows.

nlohmann::ordered_json layout_json(const Layout& layout);
nlohmann::ordered_json prediction_json(const Prediction& prediction);
nlohmann::ordered_json memory_json(const MemoryParts& parts);
nlohmann::ordered_json changes_json(const std::vector<CauseChange>& changes);
nlohmann::ordered_json plan_json(const Plan& plan);
nlohmann::ordered_json result_json(const PlanResult& result, const Cluster& cluster);
// Adds "rejections" and "more_rejections", where there are any.
void add_rejections(const Rejections& rejections, nlohmann::ordered_json& json);

// How far the step may be off: "within 10 %"; empty where the figures are nominal.
std::string accuracy_band(const Plan& plan);

// Layout, placement, stages with memory, timeline and breakdown.
std::string plan_table(const Plan& plan, const Cluster* cluster = nullptr, bool colour = false);
// plan_table, then search, notes, alternatives and, where they were kept, rejections.
std::string result_table(const PlanResult& result, const Cluster& cluster, bool colour);
std::string rejections_table(const Rejections& rejections);

}  // namespace trireme
