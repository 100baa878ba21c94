#include "launcher/commands/schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "planner/checker.h"
#include "planner/schedules/schedules.h"
#include "planner/timeline.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

struct ScheduleCommand {
  std::string name, file, stage_costs, format = "table";
  std::string costs = "f=1,i=1,w=1,comm=0";
  int pipeline = 0, micro_batches = 0;
  std::optional<int> chunks, group, memory_limit;
  bool json = false;
};

Error bad(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

double parse_cost(const std::string& text, const std::string& where) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || !std::isfinite(value) ||
      value < 0 || value > 1e12) {
    throw bad(fmt::format("{}: found \"{}\", expected a number from 0 to 1e12", where, text));
  }
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    const size_t begin = part.find_first_not_of(" \t\r"), end = part.find_last_not_of(" \t\r");
    parts.push_back(begin == std::string::npos ? "" : part.substr(begin, end - begin + 1));
  }
  return parts;
}

// "f=1,i=1,w=1,comm=0", any part of it.
Costs parse_costs(const std::string& text) {
  Costs costs;
  StageCost& stage = costs.stages.front();
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    double* target = key == "f"      ? &stage.forward
                     : key == "i"    ? &stage.input
                     : key == "w"    ? &stage.weight
                     : key == "comm" ? &costs.hop
                                     : nullptr;
    if (target == nullptr || equals == std::string::npos) {
      throw bad(
          fmt::format("--costs: found \"{}\", expected f=, i=, w= or comm= with a number", part));
    }
    *target = parse_cost(part.substr(equals + 1), "--costs " + key);
  }
  return costs;
}

// One row per global stage: forward, input gradient, weight gradient. A first row "f,i,w" is a
// heading.
std::vector<StageCost> read_stage_costs(const std::string& path) {
  std::vector<StageCost> stages;
  int line = 0;
  for (const std::string& row : split(read_text_file(path), '\n')) {
    ++line;
    if (row.empty() || (line == 1 && row == "f,i,w")) continue;
    const std::vector<std::string> cells = split(row, ',');
    const std::string where = fmt::format("{}:{}", path, line);
    if (cells.size() != 3) {
      throw bad(
          fmt::format("{}: found {} cells, expected 3: f,i,w of one stage", where, cells.size()));
    }
    stages.push_back(
        {parse_cost(cells[0], where), parse_cost(cells[1], where), parse_cost(cells[2], where)});
  }
  return stages;
}

Costs costs_of(const ScheduleCommand& command, size_t stages) {
  Costs costs = parse_costs(command.costs);
  if (command.stage_costs.empty()) return costs;
  costs.stages = read_stage_costs(command.stage_costs);
  if (costs.stages.size() != stages) {
    throw bad(fmt::format("{}: found costs of {} stages, expected {}", command.stage_costs,
                          costs.stages.size(), stages));
  }
  return costs;
}

// The schedule and what its ops cost.
std::pair<Schedule, Costs> load(const ScheduleCommand& command) {
  if (command.name.empty() == command.file.empty()) {
    throw bad("schedule: expected either the NAME of a schedule or --file");
  }
  if (!command.file.empty()) {
    Schedule schedule = parse_schedule_csv(read_text_file(command.file), command.file);
    Costs costs = costs_of(command, schedule.stages.size());
    return {std::move(schedule), std::move(costs)};
  }
  if (command.pipeline < 1 || command.micro_batches < 1) {
    throw bad("schedule: expected --pipeline and --microbatches with a named schedule");
  }
  require_built(command.name);
  const int chunks = command.chunks.value_or(fixed_chunks(command.name).value_or(1));
  const auto ops = 2.0 * command.pipeline * command.micro_batches * chunks;
  if (ops > 50e6)
    throw bad(fmt::format("schedule: {:.0f} ops are more than the limit of 50 million", ops));
  const auto stages = static_cast<size_t>(command.pipeline) * static_cast<size_t>(chunks);
  ScheduleRequest request{.name = command.name,
                          .pipeline = command.pipeline,
                          .micro_batches = command.micro_batches,
                          .chunks = command.chunks,
                          .group = command.group,
                          .costs = costs_of(command, stages)};
  Schedule schedule = make_schedule(request);
  return {std::move(schedule), std::move(request.costs)};
}

std::string over_limit(const Simulation& simulation, int limit) {
  for (size_t rank = 0; rank < simulation.peak_activations.size(); ++rank) {
    if (simulation.peak_activations[rank] > limit) {
      return fmt::format("rank {} holds {} chunk activations, above the limit of {}", rank,
                         simulation.peak_activations[rank], limit);
    }
  }
  return "";
}

nlohmann::ordered_json to_json(const Schedule& schedule, const Simulation& simulation,
                               const std::string& problem) {
  nlohmann::ordered_json stages = nlohmann::ordered_json::array();
  for (const StagePlace& place : schedule.stages) stages.push_back({place.rank, place.chunk});
  nlohmann::ordered_json json = {{"legal", problem.empty()},
                                 {"makespan", simulation.makespan},
                                 {"span", simulation.span},
                                 {"bubble_fraction", simulation.bubble_fraction},
                                 {"idle", simulation.idle},
                                 {"peak_activations", simulation.peak_activations},
                                 {"tail_slack", simulation.tail_slack},
                                 {"messages", simulation.messages},
                                 {"stages", stages}};
  if (!problem.empty()) json["reason"] = problem;
  return json;
}

std::string to_table(const Schedule& schedule, const Simulation& simulation) {
  std::string text = fmt::format(
      "{}: {} ranks, {} chunks, {} micro-batches\nmakespan {:.6g}, span {:.6g}, bubble {:.2f} %, "
      "{} "
      "messages\n\n",
      schedule.name, schedule.pipeline(), schedule.chunks(), schedule.micro_batches,
      simulation.makespan, simulation.span, 100 * simulation.bubble_fraction, simulation.messages);
  text += timeline_text(schedule, simulation, 98) + timeline_legend() + "\n\n";
  text += "rank      idle  activations  tail slack of each chunk\n";
  for (size_t rank = 0; rank < simulation.idle.size(); ++rank) {
    text +=
        fmt::format("{:>4} {:>9.6g} {:>12}  {:.6g}\n", rank, simulation.idle[rank],
                    simulation.peak_activations[rank], fmt::join(simulation.tail_slack[rank], " "));
  }
  return text;
}

int report_illegal(const Verdict& verdict, const std::string& format) {
  if (format == "json") {
    nlohmann::ordered_json json = {{"legal", false}, {"reason", verdict.reason}};
    if (verdict.first_wrong) {
      json["first_wrong"] = {{"rank", verdict.first_wrong->rank},
                             {"position", verdict.first_wrong->position}};
    }
    json["grid"] = verdict.grid;
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print(stderr, "trireme: not a legal schedule: {}\n{}", verdict.reason, verdict.grid);
  }
  return 1;
}

int run(const ScheduleCommand& command) {
  const std::string format = command.json ? "json" : command.format;
  const auto [schedule, costs] = load(command);
  const Verdict verdict = check_schedule(schedule);
  if (!verdict.legal) return report_illegal(verdict, format);
  const Simulation simulation = simulate(schedule, costs);
  const std::string problem =
      command.memory_limit ? over_limit(simulation, *command.memory_limit) : "";
  if (format == "json") {
    fmt::print("{}\n", to_json(schedule, simulation, problem).dump(2));
  } else if (format == "csv") {
    fmt::print("{}", to_csv(schedule));
  } else if (format == "svg") {
    fmt::print("{}", timeline_svg(schedule, simulation, schedule.name, false));
  } else {
    fmt::print("{}", to_table(schedule, simulation));
  }
  if (!problem.empty()) fmt::print(stderr, "trireme: {}\n", problem);
  return problem.empty() ? 0 : 1;
}

}  // namespace

void add_schedule_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<ScheduleCommand>();
  CLI::App* sub = app.add_subcommand("schedule", "draw, check and time one pipeline schedule");
  sub->add_option("NAME", command->name,
                  fmt::format("one of {}", fmt::join(built_schedules(), ", ")));
  sub->add_option("--file", command->file, "take the schedule from this CSV instead");
  sub->add_option("--pipeline", command->pipeline, "pipeline ranks")->check(CLI::Range(1, 1 << 20));
  sub->add_option("--microbatches", command->micro_batches, "micro-batches of a step")
      ->check(CLI::Range(1, 1 << 20));
  sub->add_option("--chunks", command->chunks, "stages per rank")->check(CLI::Range(1, 1 << 10));
  sub->add_option("--group", command->group, "micro-batches per group (interleaved)");
  sub->add_option("--costs", command->costs,
                  "times of one chunk op and of a hop between ranks: f=1,i=1,w=1,comm=0");
  sub->add_option("--stage-costs", command->stage_costs, "CSV with a row f,i,w for each stage");
  sub->add_option("--memory-limit", command->memory_limit,
                  "most chunk activations that a rank may hold");
  sub->add_option("--format", command->format, "table, csv, json or svg")
      ->check(CLI::IsMember({"table", "csv", "json", "svg"}));
  sub->add_flag("--json", command->json, "the same as --format json");
  sub->footer("Example: trireme schedule interleaved --pipeline 4 --microbatches 8 --chunks 2");
  sub->callback([command, &exit_status] { exit_status = run(*command); });
}

}  // namespace trireme
