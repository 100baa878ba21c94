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

// What one chunk op and one chunk activation count, once the number of chunks is known.
struct Terms {
  Costs costs;
  std::optional<std::vector<int>> limit;
};

Terms terms_of(const ScheduleQuestion& question, const Costs& costs, int chunks) {
  Terms terms{costs, question.memory_limit};
  if (!question.equal_work) return terms;
  if (terms.limit) {
    for (int& activations : *terms.limit) activations *= chunks;
  }
  if (question.stage_costs.empty()) {
    StageCost& cost = terms.costs.stages.front();
    cost = {cost.forward / chunks, cost.input / chunks, cost.weight / chunks};
  }
  return terms;
}

void expect_stages(const ScheduleQuestion& question, const Costs& costs, size_t stages) {
  if (question.stage_costs.empty() || costs.stages.size() == stages) return;
  throw bad(fmt::format("{}: found costs of {} stages, expected {}", question.stage_costs,
                        costs.stages.size(), stages));
}

// Chunks as asked, as the schedule has them, or as many as there are stage costs.
int chunks_of(const ScheduleQuestion& question, const Costs& costs) {
  if (question.chunks) return *question.chunks;
  if (const auto fixed = fixed_chunks(question.name)) return *fixed;
  const int stages = static_cast<int>(costs.stages.size());
  const bool divides = stages % question.pipeline == 0;
  return question.stage_costs.empty() || !divides ? 1 : stages / question.pipeline;
}

std::string over_limit(const std::vector<int>& peaks, const std::vector<int>& limits) {
  if (limits.size() != 1 && limits.size() != peaks.size()) {
    throw bad(
        fmt::format("--memory-limit: found {} numbers, expected one, or one for each of {} "
                    "ranks",
                    limits.size(), peaks.size()));
  }
  for (size_t rank = 0; rank < peaks.size(); ++rank) {
    const int limit = limits.size() == 1 ? limits.front() : limits[rank];
    if (peaks[rank] > limit) {
      return fmt::format("rank {} holds {} chunk activations, above the limit of {}", rank,
                         peaks[rank], limit);
    }
  }
  return "";
}

// The schedule at its best, or the best one within the memory limit where that would exceed it.
// Where none keeps the limit the best one stands, to be shown with the rank that exceeds it.
Schedule best_within(ScheduleRequest request, const std::optional<std::vector<int>>& limit) {
  Schedule best = make_schedule(request);
  if (!limit) return best;
  const Simulation simulation = simulate(best, request.costs);
  if (over_limit(simulation.peak_activations, *limit).empty()) return best;
  request.memory_limit = limit;
  try {
    return make_schedule(request);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_input) throw;
    return best;
  }
}

Terms build(const ScheduleQuestion& question, Schedule& schedule) {
  if (question.pipeline < 1 || question.micro_batches < 1) {
    throw bad("schedule: expected --pipeline and --microbatches with a named schedule");
  }
  require_built(question.name);
  const Costs costs = costs_of(question);
  const int chunks = chunks_of(question, costs);
  const double ops = 2.0 * question.pipeline * question.micro_batches * chunks;
  if (ops > kMostOps) {
    throw bad(fmt::format("schedule: {:.0f} ops are more than the limit of 50 million", ops));
  }
  expect_stages(question, costs,
                static_cast<size_t>(question.pipeline) * static_cast<size_t>(chunks));
  Terms terms = terms_of(question, costs, chunks);
  schedule = best_within({.name = question.name,
                          .pipeline = question.pipeline,
                          .micro_batches = question.micro_batches,
                          .chunks = chunks,
                          .group = question.group,
                          .costs = terms.costs,
                          .warm_up = question.warm_up,
                          .latency_aware = question.latency_aware},
                         terms.limit);
  return terms;
}

Terms read(const ScheduleQuestion& question, Schedule& schedule) {
  schedule = parse_schedule_csv(read_text_file(question.file), question.file);
  const auto expect = [&](const char* option, int asked, int found) {
    if (asked == 0 || asked == found) return;
    throw bad(fmt::format("{}: found {} for {}, expected {} as asked", question.file, found, option,
                          asked));
  };
  expect("--pipeline", question.pipeline, schedule.pipeline());
  // The file tells the ops, not how many micro-batches were meant: the checker finds the
  // difference.
  if (question.micro_batches > 0) schedule.micro_batches = question.micro_batches;
  expect("--chunks", question.chunks.value_or(0), schedule.chunks());
  const Costs costs = costs_of(question);
  expect_stages(question, costs, schedule.stages.size());
  return terms_of(question, costs, schedule.chunks());
}

// A question about one of several schedules, at equal work of each pipeline rank.
ScheduleQuestion shared_out(ScheduleQuestion question, const std::string& name) {
  question.name = question.file = "";
  question.equal_work = true;
  const bool is_file = name.size() > 4 && name.ends_with(".csv");
  (is_file ? question.file : question.name) = name;
  if (is_file) {
    question.chunks.reset();
    return question;
  }
  require_built(name);
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
  const Terms terms =
      question.file.empty() ? build(question, judged.schedule) : read(question, judged.schedule);
  judged.costs = terms.costs;
  if (question.equal_work) judged.activation = 1.0 / judged.schedule.chunks();
  judged.name = judged.schedule.name;
  judged.verdict = check_schedule(judged.schedule);
  if (!judged.verdict.legal) return judged;
  judged.simulation = simulate(judged.schedule, judged.costs);
  if (terms.limit) {
    judged.over_limit = over_limit(judged.simulation.peak_activations, *terms.limit);
  }
  return judged;
}

std::vector<JudgedSchedule> judge_all(const ScheduleQuestion& question,
                                      const std::vector<std::string>& names) {
  const std::vector<std::string> known = built_schedules();
  std::vector<JudgedSchedule> all;
  for (const std::string& name : names) {
    // A name that no schedule has, and a file that cannot be read, are mistakes; sizes that a
    // known schedule is not defined for are an answer.
    const bool may_refuse = std::find(known.begin(), known.end(), name) != known.end();
    try {
      all.push_back(judge(shared_out(question, name)));
    } catch (const Error& error) {
      if (!may_refuse) throw;
      all.push_back({.name = name, .refusal = error.what()});
    }
  }
  return all;
}

double peak_of(const JudgedSchedule& judged) {
  const std::vector<int>& peaks = judged.simulation.peak_activations;
  return judged.activation * *std::max_element(peaks.begin(), peaks.end());
}

Timeline timeline_of(const JudgedSchedule& judged) {
  const Schedule& schedule = judged.schedule;
  const Simulation& simulation = judged.simulation;
  Timeline timeline = timeline_of(schedule, simulation);
  timeline.activation = judged.activation;
  timeline.facts = fmt::format(
      "{} ranks, {} chunk{} each, {} micro-batches: makespan {:.6g}, span {:.6g}, bubble {:.2f} %, "
      "{:.6g} activations at most, {} messages{}",
      schedule.pipeline(), schedule.chunks(), schedule.chunks() == 1 ? "" : "s",
      schedule.micro_batches, simulation.makespan, simulation.span,
      100 * simulation.bubble_fraction, peak_of(judged), simulation.messages,
      schedule.asynchronous ? ", asynchronous: an update after every backward" : "");
  return timeline;
}

}  // namespace trireme
