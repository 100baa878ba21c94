#include "launcher/commands/schedule_judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launcher/commands/schedule_costs.h"
#include "planner/schedules/schedules.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

constexpr double kMostOps = 50e6;
constexpr double kMostSearched = 1e6;
constexpr double kRounding = 1e-9;

Error bad(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

Costs costs_of(const ScheduleQuestion& question) {
  Costs costs = parse_costs(question.costs);
  if (!question.stage_costs.empty()) read_stage_costs(question.stage_costs, costs);
  return costs;
}

// At equal work the given costs are shared out among a rank's chunks.
Costs shared_out(const ScheduleQuestion& question, Costs costs, int chunks) {
  if (!question.equal_work || !question.stage_costs.empty()) return costs;
  StageCost& cost = costs.stages.front();
  cost = {cost.forward / chunks, cost.input / chunks, cost.weight / chunks};
  costs.memory = {{1.0 / chunks, 1.0 / chunks}};
  return costs;
}

void expect_stages(const ScheduleQuestion& question, const Costs& costs, int stages) {
  if (question.stage_costs.empty() || costs.stages.size() == static_cast<size_t>(stages)) return;
  throw bad(fmt::format("{}: found costs of {} stages, expected {}", question.stage_costs,
                        costs.stages.size(), stages));
}

// Chunks as asked, as the schedule has them, or as many as there are stage costs.
int chunks_of(const ScheduleQuestion& question, const Costs& costs) {
  if (question.chunks) return *question.chunks;
  if (question.name != "auto") {
    if (const auto fixed = fixed_chunks(question.name)) return *fixed;
  }
  const int stages = static_cast<int>(costs.stages.size());
  const bool divides = stages % question.pipeline == 0;
  return question.stage_costs.empty() || !divides ? 1 : stages / question.pipeline;
}

std::string over_limit(const Simulation& simulation, const std::vector<double>& limits) {
  const std::vector<double>& peaks = simulation.peak_memory;
  if (limits.size() != 1 && limits.size() != peaks.size()) {
    throw bad(
        fmt::format("--memory-limit: found {} numbers, expected one, or one for each of {} "
                    "ranks",
                    limits.size(), peaks.size()));
  }
  for (size_t rank = 0; rank < peaks.size(); ++rank) {
    const double limit = limits.size() == 1 ? limits.front() : limits[rank];
    if (peaks[rank] <= limit * (1 + kRounding)) continue;
    const bool counted = peaks[rank] == simulation.peak_activations[rank];
    return fmt::format("rank {} holds {:.6g}{}, above the limit of {:.6g}", rank, peaks[rank],
                       counted ? " chunk activations"
                               : fmt::format(" of memory in {} chunk activations",
                                             simulation.peak_activations[rank]),
                       limit);
  }
  return "";
}

// The limit in whole chunk activations, as generators take it; nothing where activations differ.
std::optional<std::vector<int>> activations_within(const std::vector<double>& limits,
                                                   const Costs& costs) {
  if (costs.memory.size() > 1) return std::nullopt;
  const double activation = costs.memory.empty() ? 1 : costs.memory.front().activation;
  std::vector<int> whole;
  whole.reserve(limits.size());
  for (const double limit : limits) {
    whole.push_back(static_cast<int>(std::min(1e9, std::floor(limit / activation + kRounding))));
  }
  return whole;
}

// The schedule at its best, or the best one within the memory limit where that would exceed it.
// Where none keeps the limit the best one stands, to be shown with the rank that exceeds it.
Schedule best_within(ScheduleRequest request, const std::optional<std::vector<double>>& limits) {
  Schedule best = make_schedule(request);
  if (!limits || over_limit(simulate(best, request.costs), *limits).empty()) return best;
  request.memory_limit = activations_within(*limits, request.costs);
  if (!request.memory_limit) return best;
  try {
    return make_schedule(request);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_input) throw;
    return best;
  }
}

// What the search finds within the limit. Equal work may be cut into any number of chunks, so there
// the best number is taken where none is asked for.
void choose(const ScheduleQuestion& question, const Costs& costs, int chunks,
            JudgedSchedule& judged) {
  if (question.group || question.warm_up || question.latency_aware) {
    throw bad(
        "auto chooses groups and warm-ups itself: leave --group, --warm-up and "
        "--latency-aware out");
  }
  const bool any = question.equal_work && !question.chunks && question.stage_costs.empty();
  for (const int count : any ? std::vector<int>{1, 2, 4} : std::vector<int>{chunks}) {
    const double ops = 2.0 * question.pipeline * question.micro_batches * count;
    if (ops > kMostSearched) {
      if (judged.choice) break;
      throw bad(fmt::format("auto: {:.0f} ops are more than the million that it searches", ops));
    }
    AutoRequest request;
    request.pipeline = question.pipeline;
    request.micro_batches = question.micro_batches;
    request.chunks = count;
    request.costs = shared_out(question, costs, count);
    request.memory_limit = question.memory_limit;
    AutoChoice choice = choose_schedule(request);
    if (judged.choice && choice.makespan >= judged.choice->makespan * (1 - kRounding)) continue;
    judged.costs = request.costs;
    judged.choice = std::move(choice);
  }
  judged.schedule = std::move(judged.choice->schedule);
}

void require_sizes(const ScheduleQuestion& question) {
  if (question.pipeline >= 1 && question.micro_batches >= 1) return;
  throw bad("schedule: expected --pipeline and --microbatches with a named schedule");
}

void build(const ScheduleQuestion& question, JudgedSchedule& judged) {
  require_sizes(question);
  require_built(question.name);
  const Costs costs = costs_of(question);
  const int chunks = chunks_of(question, costs);
  const double ops = 2.0 * question.pipeline * question.micro_batches * chunks;
  if (ops > kMostOps) {
    throw bad(fmt::format("schedule: {:.0f} ops are more than the limit of 50 million", ops));
  }
  expect_stages(question, costs, question.pipeline * chunks);
  if (question.name == "auto") {
    return choose(question, costs, chunks, judged);
  }
  judged.costs = shared_out(question, costs, chunks);
  judged.schedule = best_within({.name = question.name,
                                 .pipeline = question.pipeline,
                                 .micro_batches = question.micro_batches,
                                 .chunks = chunks,
                                 .group = question.group,
                                 .costs = judged.costs,
                                 .warm_up = question.warm_up,
                                 .latency_aware = question.latency_aware},
                                question.memory_limit);
}

void read(const ScheduleQuestion& question, JudgedSchedule& judged) {
  judged.schedule = parse_schedule_csv(read_text_file(question.file), question.file);
  Schedule& schedule = judged.schedule;
  const auto expect = [&](const char* option, int asked, int found) {
    if (asked == 0 || asked == found) return;
    throw bad(fmt::format("{}: found {} for {}, expected {} as asked", question.file, found, option,
                          asked));
  };
  expect("--pipeline", question.pipeline, schedule.pipeline());
  expect("--chunks", question.chunks.value_or(0), schedule.chunks());
  // The file tells the ops, not how many micro-batches were meant: the checker finds the
  // difference.
  if (question.micro_batches > 0) schedule.micro_batches = question.micro_batches;
  const Costs costs = costs_of(question);
  expect_stages(question, costs, static_cast<int>(schedule.stages.size()));
  judged.costs = shared_out(question, costs, schedule.chunks());
}

bool is_file(const std::string& name) {
  return name.size() > 4 && name.ends_with(".csv");
}

// The question about one of several schedules, at equal work of each pipeline rank.
ScheduleQuestion question_about(ScheduleQuestion question, const std::string& name) {
  question.name = question.file = "";
  question.equal_work = true;
  (is_file(name) ? question.file : question.name) = name;
  if (is_file(name)) {
    question.chunks.reset();
    return question;
  }
  require_built(name);
  if (name == "auto") return question;
  if (const auto fixed = fixed_chunks(name)) question.chunks = fixed;
  return question;
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
  judged.verdict = check_schedule(judged.schedule, {.sends = question.sends});
  if (!judged.verdict.legal) return judged;
  judged.simulation = simulate(judged.schedule, judged.costs);
  if (question.memory_limit) {
    judged.over_limit = over_limit(judged.simulation, *question.memory_limit);
  }
  return judged;
}

namespace {

// What is wrong with the question itself is no answer about any of the schedules.
void check_question(const ScheduleQuestion& question, const std::vector<std::string>& names) {
  costs_of(question);
  if (std::all_of(names.begin(), names.end(), is_file)) return;
  require_sizes(question);
  const size_t limits = question.memory_limit ? question.memory_limit->size() : 1;
  if (limits == 1 || limits == static_cast<size_t>(question.pipeline)) return;
  throw bad(fmt::format("--memory-limit: found {} numbers, expected one or {}", limits,
                        question.pipeline));
}

}  // namespace

std::vector<JudgedSchedule> judge_all(const ScheduleQuestion& question,
                                      const std::vector<std::string>& names) {
  check_question(question, names);
  std::vector<std::string> known = built_schedules();
  known.emplace_back("auto");
  std::vector<JudgedSchedule> all;
  for (const std::string& name : names) {
    // A name that no schedule has, and a file that cannot be read, are mistakes; sizes that a
    // known schedule is not defined for are an answer.
    const bool may_refuse = std::find(known.begin(), known.end(), name) != known.end();
    try {
      all.push_back(judge(question_about(question, name)));
    } catch (const Error& error) {
      if (!may_refuse) throw;
      all.push_back({.name = name, .refusal = error.what()});
    }
  }
  return all;
}

double peak_of(const JudgedSchedule& judged) {
  const std::vector<double>& peaks = judged.simulation.peak_memory;
  return *std::max_element(peaks.begin(), peaks.end());
}

Timeline timeline_of(const JudgedSchedule& judged) {
  const Schedule& schedule = judged.schedule;
  const Simulation& simulation = judged.simulation;
  Timeline timeline = timeline_of(schedule, simulation);
  timeline.facts = fmt::format(
      "{} rank{}, {} chunk{} each, {} micro-batch{}: makespan {:.6g}, span {:.6g}, bubble {:.2f} "
      "%, memory {:.6g}, {} messages{}",
      schedule.pipeline(), schedule.pipeline() == 1 ? "" : "s", schedule.chunks(),
      schedule.chunks() == 1 ? "" : "s", schedule.micro_batches,
      schedule.micro_batches == 1 ? "" : "es", simulation.makespan, simulation.span,
      100 * simulation.bubble_fraction, peak_of(judged), simulation.messages,
      schedule.asynchronous ? ", asynchronous: an update after every backward" : "");
  return timeline;
}

}  // namespace trireme
