#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launcher/commands/schedule_judge.h"

namespace trireme {

// The answers of the schedule command, for people and for programs (docs/schedules.md).
nlohmann::ordered_json schedule_json(const JudgedSchedule& judged);
// Figures, timeline, and a line per rank.
std::string schedule_table(const JudgedSchedule& judged);
// The ops that a schedule lacks, by rank.
std::string missing_table(const Schedule& schedule);
// A line of figures for each, then their timelines on one axis.
std::string comparison_table(const std::vector<JudgedSchedule>& all);

}  // namespace trireme
