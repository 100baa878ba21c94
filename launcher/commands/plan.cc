#include "launcher/commands/plan.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands/common.h"
#include "launcher/commands/explain_report.h"
#include "launcher/commands/report.h"
#include "launcher/commands/terminal.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

struct PlanCommand {
  PlanningInput input;
  std::vector<std::string> explain;
  std::string output;
  int top = 5;
  bool json = false;
  bool rejected = false;
};

// The job's pins with those of one --explain on top: "tensor=4,pipeline=2".
Pins pins_to_explain(const Job& job, const std::string& asked) {
  Pins pins = job.pins;
  for (const std::string& pin : CLI::detail::split(asked, ',')) {
    try {
      set_pin(pins, pin);
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("--explain {}: {}", asked, error.what()));
    }
  }
  return pins;
}

void run(const PlanCommand& command) {
  const Job job = load_job(command.input.job, command.input.pins);
  const Cluster cluster = load_cluster(command.input.cluster);
  std::vector<Pins> questions;
  for (const std::string& asked : command.explain) questions.push_back(pins_to_explain(job, asked));
  const PlanResult result =
      find_plan(job, cluster, planning_options(command.top, command.rejected));
  const bool colour = stdout_takes_colour();
  std::string text = command.json ? "" : result_table(result, cluster, colour);
  nlohmann::ordered_json json;
  if (command.json) json = result_json(result, cluster);
  for (size_t i = 0; i < questions.size(); ++i) {
    const Explanation answer = explain(job, cluster, result, questions[i]);
    if (command.json) {
      json["explanations"].push_back(explanation_json(command.explain[i], answer));
    } else {
      text += explanation_table(command.explain[i], answer, result.plan, colour);
    }
  }
  fmt::print("{}", command.json ? json.dump(2) + "\n" : text);
  if (!command.output.empty()) {
    write_text_file(command.output, to_toml(result.plan));
    fmt::print(stderr, "plan written to {}\n", command.output);
  }
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<PlanCommand>();
  CLI::App* sub = app.add_subcommand("plan", "find the fastest layout that fits; starts nothing");
  add_planning_options(*sub, command->input);
  sub->add_option("-o,--output", command->output, "write the plan file here");
  sub->add_option("--top", command->top, "how many layouts to report")->check(CLI::Range(1, 1000));
  sub->add_option("--explain", command->explain,
                  "say why the layouts with these pins lost, as in tensor=4,pipeline=2; repeatable")
      ->allow_extra_args(false);
  sub->add_flag("--rejected", command->rejected, "list the layouts that were turned down, and why");
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer(
      "Examples:\n"
      "  trireme plan job.toml --cluster cluster.toml -o plan.toml --pin tensor=2\n"
      "  trireme plan job.toml --cluster cluster.toml --explain tensor=8 --explain pipeline=1");
  sub->callback([command, &exit_status] {
    run(*command);
    exit_status = 0;
  });
}

}  // namespace trireme
