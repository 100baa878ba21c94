#include "launcher/commands/schedule_judge.h"

#include <fmt/format.h>

#include <algorithm>

#include "launcher/commands/schedule_costs.h"
#include "planner/schedules/schedules.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

constexpr double kMostOps = 50e6;

Error bad(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

Costs costs_of(const ScheduleQuestion& question) {
  Costs costs = parse_costs(question.costs);
  if (!question.stage_costs.empty()) costs.stages = read_stage_costs(question.stage_costs);
  return costs;
}

void expect_stages(const ScheduleQuestion& question, const Costs& costs, size_t stages) {
  if (question.stage_costs.empty() || costs.stages.size() == stages) return;
  throw bad(fmt::format("{}: found costs of {} stages, expected {}", question.stage_costs,
                        costs.stages.size(), stages));
}

void build(const ScheduleQuestion& question, JudgedSchedule& judged) {
  if (question.pipeline < 1 || question.micro_batches < 1) {
    throw bad("schedule: expected --pipeline and --microbatches with a named schedule");
  }
  const int chunks = question.chunks.value_or(1);
  const double ops = 2.0 * question.pipeline * question.micro_batches * chunks;
  if (ops > kMostOps) {
    throw bad(fmt::format("schedule: {:.0f} ops are more than the limit of 50 million", ops));
  }
  judged.costs = costs_of(question);
  expect_stages(question, judged.costs,
                static_cast<size_t>(question.pipeline) * static_cast<size_t>(chunks));
  judged.schedule = make_schedule({.name = question.name,
                                   .pipeline = question.pipeline,
                                   .micro_batches = question.micro_batches,
                                   .chunks = chunks,
                                   .group = question.group,
                                   .costs = judged.costs});
}

void read(const ScheduleQuestion& question, JudgedSchedule& judged) {
  judged.schedule = parse_schedule_csv(read_text_file(question.file), question.file);
  const Schedule& schedule = judged.schedule;
  const auto expect = [&](const char* option, int asked, int found) {
    if (asked == 0 || asked == found) return;
    throw bad(fmt::format("{}: found {} for {}, expected {} as asked", question.file, found, option,
                          asked));
  };
  expect("--pipeline", question.pipeline, schedule.pipeline());
  // The file tells the ops, not how many micro-batches were meant: the checker finds the
  // difference.
  if (question.micro_batches > 0) judged.schedule.micro_batches = question.micro_batches;
  expect("--chunks", question.chunks.value_or(0), schedule.chunks());
  judged.costs = costs_of(question);
  expect_stages(question, judged.costs, schedule.stages.size());
}

std::string over_limit(const Simulation& simulation, const std::vector<int>& limits) {
  const size_t ranks = simulation.peak_activations.size();
  if (limits.size() != 1 && limits.size() != ranks) {
    throw bad(
        fmt::format("--memory-limit: found {} numbers, expected one, or one for each of {} "
                    "ranks",
                    limits.size(), ranks));
  }
  for (size_t rank = 0; rank < ranks; ++rank) {
    const int limit = limits.size() == 1 ? limits.front() : limits[rank];
    if (simulation.peak_activations[rank] > limit) {
      return fmt::format("rank {} holds {} chunk activations, above the limit of {}", rank,
                         simulation.peak_activations[rank], limit);
    }
  }
  return "";
}

}  // namespace

const std::string& JudgedSchedule::reason() const {
  return !refusal.empty() ? refusal : !verdict.legal ? verdict.reason : over_limit;
}

JudgedSchedule judge(const ScheduleQuestion& question) {
  if (question.name.empty() == question.file.empty()) {
    throw bad("schedule: expected either the NAME of a schedule or --file");
  }
  JudgedSchedule judged;
  if (question.file.empty()) {
    build(question, judged);
  } else {
    read(question, judged);
  }
  judged.name = judged.schedule.name;
  judged.verdict = check_schedule(judged.schedule);
  if (!judged.verdict.legal) return judged;
  judged.simulation = simulate(judged.schedule, judged.costs);
  if (question.memory_limit) {
    judged.over_limit = over_limit(judged.simulation, *question.memory_limit);
  }
  return judged;
}

std::vector<JudgedSchedule> judge_all(const ScheduleQuestion& question,
                                      const std::vector<std::string>& names) {
  const std::vector<std::string> known = built_schedules();
  std::vector<JudgedSchedule> all;
  for (const std::string& name : names) {
    ScheduleQuestion one = question;
    one.name = one.file = "";
    const bool is_file = name.size() > 4 && name.ends_with(".csv");
    (is_file ? one.file : one.name) = name;
    // A name that no schedule has, and a file that cannot be read, are mistakes; sizes that a
    // known schedule is not defined for are an answer.
    const bool may_refuse = std::find(known.begin(), known.end(), name) != known.end();
    try {
      all.push_back(judge(one));
    } catch (const Error& error) {
      if (!may_refuse) throw;
      all.push_back({.name = name, .refusal = error.what()});
    }
  }
  return all;
}

Timeline timeline_of(const JudgedSchedule& judged) {
  const Schedule& schedule = judged.schedule;
  const Simulation& simulation = judged.simulation;
  Timeline timeline = timeline_of(schedule, simulation);
  timeline.facts = fmt::format(
      "{} ranks, {} chunk{} each, {} micro-batches: makespan {:.6g}, span {:.6g}, bubble {:.2f} %, "
      "{} activations at most, {} messages",
      schedule.pipeline(), schedule.chunks(), schedule.chunks() == 1 ? "" : "s",
      schedule.micro_batches, simulation.makespan, simulation.span,
      100 * simulation.bubble_fraction,
      *std::max_element(simulation.peak_activations.begin(), simulation.peak_activations.end()),
      simulation.messages);
  return timeline;
}

}  // namespace trireme
