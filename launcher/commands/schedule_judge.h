#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/checker.h"
#include "planner/drawing/timeline.h"
#include "planner/plan/schedule.h"
#include "planner/simulator.h"
#include "planner/synthesis/automatic.h"

namespace trireme {

// What the schedule command was asked, beside how to print it.
struct ScheduleQuestion {
  std::string name;  // of a schedule, or
  std::string file;  // a CSV that holds one
  int pipeline = 0;  // 0: not given
  int micro_batches = 0;
  std::optional<int> chunks, group, warm_up;
  bool latency_aware = false;
  std::string costs;        // "f=1,i=1,w=1,comm=0"
  std::string stage_costs;  // a CSV; empty: none
  // One for all ranks or one each, in chunk activations or, where the stage costs tell what stages
  // hold, in their unit.
  std::optional<std::vector<double>> memory_limit;
  SendMode sends = SendMode::asynchronous;
  bool equal_work = false;  // `costs` and `memory_limit` are those of a rank with one stage: with v
                            // chunks an op takes 1/v of the time and an activation 1/v of the room
};

// One schedule, built or read, proven and timed.
struct JudgedSchedule {
  std::string name;
  std::string refusal;  // why there is no such schedule; all below is then empty
  Schedule schedule = {};
  Costs costs = {};
  Verdict verdict = {};
  Simulation simulation = {};             // only of a schedule that the checker proved
  std::optional<AutoChoice> choice = {};  // what auto says of it; its schedule is the one above
  std::string over_limit = {};            // which rank holds more than it may

  bool timed() const { return refusal.empty() && verdict.legal; }
  bool legal() const { return timed() && over_limit.empty(); }
  // Why it is not legal; empty when it is.
  const std::string& reason() const;
};

// Throws Error(bad_input) for what cannot be asked: no such name, a missing file, wrong numbers, or
// sizes that the schedule is not defined for.
JudgedSchedule judge(const ScheduleQuestion& question);

// The question at equal work for each of these names (or CSV files, where a name ends in ".csv").
// Schedules with a fixed number of chunks keep it. Sizes that one of them is not defined for become
// its refusal.
std::vector<JudgedSchedule> judge_all(const ScheduleQuestion& question,
                                      const std::vector<std::string>& names);

// Of a timed one: the most that any rank holds.
double peak_of(const JudgedSchedule& judged);

// A drawing of a timed one, with its figures.
Timeline timeline_of(const JudgedSchedule& judged);

}  // namespace trireme
