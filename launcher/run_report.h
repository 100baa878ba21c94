#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "launcher/controller_state.h"
#include "launcher/step_book.h"
#include "planner/plan/plan.h"

namespace trireme {

// What is said when a run has ended.
struct RunReport {
  const Plan& plan;
  const RunOutcome& outcome;
  const RunTotals& totals;
  std::string run_directory;
  std::string trace;   // the merged trace; empty: none
  double seconds = 0;  // of the whole run
  bool rehearsal = false;
};

// The one object of `trireme run --json`. Measured values are medians over the steps.
nlohmann::json to_json(const RunReport& report);

// The closing summary of a run that did not fail, a few lines. A stopped run says how to resume.
std::string summary_text(const RunReport& report);

// Joins trace/rank-*.json (each an array of Chrome trace events) into trace/trace.json. Returns its
// path, or an empty text when no rank has left a whole trace.
std::string merge_traces(const std::string& run_directory, int ranks);

}  // namespace trireme
