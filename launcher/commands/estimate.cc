#include "launcher/commands/estimate.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands/common.h"
#include "launcher/commands/report.h"
#include "launcher/commands/terminal.h"

namespace trireme {

void add_estimate_command(CLI::App& app, int& exit_status) {
  struct EstimateCommand {
    PlanningInput input;
    bool json = false;
  };
  const auto command = std::make_shared<EstimateCommand>();
  CLI::App* sub = app.add_subcommand(
      "estimate", "predict one layout; what is not pinned takes its fastest value");
  add_planning_options(*sub, command->input);
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer(
      "Example: trireme estimate job.toml --cluster cluster.toml --pin tensor=8 --pin pipeline=4");
  sub->callback([command, &exit_status] {
    const Job job = load_job(command->input.job, command->input.pins);
    const Cluster cluster = load_cluster(command->input.cluster);
    const PlanResult result =
        find_plan(job, cluster, planning_options(command->input, job, 1, false));
    fmt::print("{}", command->json ? result_json(result, cluster).dump(2) + "\n"
                                   : result_table(result, cluster, stdout_takes_colour()));
    exit_status = 0;
  });
}

}  // namespace trireme
