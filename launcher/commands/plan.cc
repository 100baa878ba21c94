#include "launcher/commands/plan.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands/common.h"
#include "launcher/commands/report.h"

namespace trireme {
namespace {

struct PlanCommand {
  PlanningInput input;
  std::string output;
  int top = 5;
  bool json = false;
  bool rejected = false;
};

void run(const PlanCommand& command) {
  const PlanResult result = plan_job(command.input, command.top, command.rejected);
  if (command.json) {
    fmt::print("{}\n", result_json(result).dump(2));
  } else {
    fmt::print("{}", result_table(result));
  }
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
  sub->add_flag("--rejected", command->rejected, "list the layouts that were turned down, and why");
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer("Example: trireme plan job.toml --cluster cluster.toml -o plan.toml --pin tensor=2");
  sub->callback([command, &exit_status] {
    run(*command);
    exit_status = 0;
  });
}

}  // namespace trireme
