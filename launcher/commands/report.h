#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "planner/search.h"

namespace trireme {

// How commands show plans: tables for people, at most 100 columns, and the JSON of docs/planner.md.
nlohmann::ordered_json plan_json(const Plan& plan);
nlohmann::ordered_json result_json(const PlanResult& result);

// Layout, placement, stages with memory, timeline and breakdown.
std::string plan_table(const Plan& plan);
// plan_table, then search, notes, alternatives and, where they were kept, rejections.
std::string result_table(const PlanResult& result);

}  // namespace trireme
