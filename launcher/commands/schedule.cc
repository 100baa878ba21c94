#include "launcher/commands/schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "launcher/commands/schedule_costs.h"
#include "launcher/commands/schedule_judge.h"
#include "launcher/commands/schedule_report.h"
#include "launcher/commands/schedule_run.h"
#include "planner/drawing/svg.h"
#include "planner/schedules/schedules.h"
#include "topology/base/error.h"
#include "topology/base/say.h"

namespace trireme {
namespace {

struct ScheduleCommand {
  ScheduleQuestion question;
  std::string memory_limit, sends = "asynchronous";
  bool missing = false;
  std::vector<std::string> compare;
  std::string from_trace;
  std::optional<int> step;
  std::string format = "table";
  bool json = false;
};

SendMode send_mode(const std::string& name) {
  if (name == "buffered") return SendMode::buffered;
  if (name == "batched") return SendMode::batched;
  return name == "blocking" ? SendMode::blocking : SendMode::asynchronous;
}

int print_one(const JudgedSchedule& judged, const std::string& format) {
  if (format == "json") {
    fmt::print("{}\n", schedule_json(judged).dump(2));
  } else if (!judged.timed()) {
    say(stderr, "trireme: {}: not a legal schedule: {}\n{}", judged.name, judged.reason(),
        judged.verdict.grid);
    return 1;
  } else if (format == "csv") {
    fmt::print("{}", to_csv(judged.schedule));
  } else if (format == "svg") {
    fmt::print("{}", draw_svg({timeline_of(judged)}, "units"));
  } else {
    fmt::print("{}", schedule_table(judged));
  }
  if (!judged.over_limit.empty()) say(stderr, "trireme: {}\n", judged.over_limit);
  return judged.legal() ? 0 : 1;
}

int print_all(const std::vector<JudgedSchedule>& all, const std::string& format) {
  if (format == "csv") {
    throw Error(ErrorKind::bad_input,
                "--compare: a CSV holds one schedule, expected --format table, json or svg");
  }
  if (format == "json") {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const JudgedSchedule& judged : all) json.push_back(schedule_json(judged));
    fmt::print("{}\n", json.dump(2));
  } else if (format == "svg") {
    std::vector<Timeline> timelines;
    for (const JudgedSchedule& judged : all) {
      if (judged.timed()) timelines.push_back(timeline_of(judged));
    }
    fmt::print("{}", draw_svg(timelines, "units"));
  } else {
    fmt::print("{}", comparison_table(all));
  }
  bool legal = true;
  for (const JudgedSchedule& judged : all) {
    legal = legal && judged.legal();
    // A table and JSON have the reason in place.
    if (!judged.legal() && format == "svg") {
      say(stderr, "trireme: {}: {}\n", judged.name, judged.reason());
    }
  }
  return legal ? 0 : 1;
}

// What chooses among built schedules has nothing to choose in one that is given.
void refuse_choices_of_a_file(const ScheduleQuestion& question) {
  if (question.file.empty()) return;
  const char* choice = question.group           ? "--group"
                       : question.warm_up       ? "--warm-up"
                       : question.latency_aware ? "--latency-aware"
                                                : nullptr;
  if (choice == nullptr) return;
  throw Error(ErrorKind::bad_input,
              fmt::format("{} is of built schedules; that of --file is what it is", choice));
}

int run(ScheduleCommand command) {
  refuse_choices_of_a_file(command.question);
  const std::string format = command.json ? "json" : command.format;
  const ScheduleQuestion& question = command.question;
  const int asked =
      static_cast<int>(!question.name.empty()) + static_cast<int>(!question.file.empty()) +
      static_cast<int>(!command.compare.empty()) + static_cast<int>(!command.from_trace.empty());
  if (asked != 1) {
    throw Error(ErrorKind::bad_input,
                "schedule: expected one of NAME, --file, --compare and --from-trace");
  }
  if (!command.from_trace.empty()) {
    if (format == "csv") {
      throw Error(ErrorKind::bad_input,
                  "--from-trace: a CSV holds no times, expected --format table, json or svg");
    }
    fmt::print("{}", compare_with_run(command.from_trace, command.step, format));
    return 0;
  }
  command.question.sends = send_mode(command.sends);
  if (!command.memory_limit.empty()) {
    command.question.memory_limit = parse_limits(command.memory_limit);
  }
  if (!command.compare.empty()) return print_all(judge_all(question, command.compare), format);
  const JudgedSchedule judged = judge(question);
  if (command.missing && format != "json") {
    fmt::print("{}", missing_table(judged.schedule));
    return judged.legal() ? 0 : 1;
  }
  return print_one(judged, format);
}

void add_schedule_options(CLI::App& sub, ScheduleQuestion& question) {
  sub.add_option("NAME", question.name,
                 fmt::format("one of {}, or auto: the best that a search finds",
                             fmt::join(built_schedules(), ", ")));
  sub.add_option("--file", question.file, "take the schedule from this CSV instead");
  sub.add_option("--pipeline", question.pipeline, "pipeline ranks")->check(CLI::Range(1, 1 << 20));
  sub.add_option("--microbatches", question.micro_batches, "micro-batches of a step")
      ->check(CLI::Range(1, 1 << 20));
  sub.add_option("--chunks", question.chunks, "stages per rank")->check(CLI::Range(1, 1 << 10));
  sub.add_option("--group", question.group, "micro-batches per group (interleaved)");
  sub.add_option("--warm-up", question.warm_up,
                 "so many forwards more before the first backward of every rank");
  sub.add_flag("--latency-aware", question.latency_aware,
               "also try the warm-up that covers the hops of --costs comm=");
  question.costs = "f=1,i=1,w=1,comm=0";
  sub.add_option("--costs", question.costs,
                 "times of one chunk op and of a hop between ranks: f=1,i=1,w=1,comm=0; also\n"
                 "transfer=0 (a message occupies its link), overlap=0 (share of an overlapped\n"
                 "pair's shorter op that it hides)");
  sub.add_option("--stage-costs", question.stage_costs,
                 "CSV with a row f,i,w for each stage, or f,i,w,activation,kept");
}

}  // namespace

void add_schedule_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<ScheduleCommand>();
  CLI::App* sub =
      app.add_subcommand("schedule", "draw, check, time and compare pipeline schedules");
  add_schedule_options(*sub, command->question);
  sub->add_option("--memory-limit", command->memory_limit,
                  "most chunk activations that a rank may hold: 8, or one per rank as in 8,8,6,4");
  sub->add_option("--sends", command->sends,
                  "messages to prove it for: asynchronous, buffered, batched or blocking")
      ->check(CLI::IsMember({"asynchronous", "buffered", "batched", "blocking"}));
  sub->add_flag("--missing", command->missing, "list the ops that the schedule of --file lacks");
  sub->add_option("--compare", command->compare,
                  "several, at equal work per rank: names, or CSV files, as in 1f1b,zb-h1,mine.csv")
      ->delimiter(',');
  auto* from_trace =
      sub->add_option("--from-trace", command->from_trace,
                      "a run directory: what really happened beside what was predicted");
  for (const char* of_a_plan :
       {"--pipeline", "--microbatches", "--chunks", "--group", "--warm-up", "--latency-aware",
        "--costs", "--stage-costs", "--memory-limit", "--sends", "--missing"}) {
    from_trace->excludes(sub->get_option(of_a_plan));
  }
  sub->add_option("--step", command->step, "which step of --from-trace (the last)")
      ->needs(from_trace);
  sub->add_option("--format", command->format, "table, csv, json or svg")
      ->check(CLI::IsMember({"table", "csv", "json", "svg"}));
  sub->add_flag("--json", command->json, "the same as --format json")->excludes("--format");
  sub->footer(
      "Examples: trireme schedule interleaved --pipeline 4 --microbatches 8 --chunks 2\n"
      "          trireme schedule --compare gpipe,1f1b --pipeline 4 --microbatches 8");
  sub->callback([command, &exit_status] { exit_status = run(*command); });
}

}  // namespace trireme
