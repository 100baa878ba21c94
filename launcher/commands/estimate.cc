#include "launcher/commands/estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands/common.h"
#include "launcher/commands/report.h"
#include "launcher/commands/terminal.h"
#include "topology/base/error.h"

namespace trireme {

namespace {

struct EstimateCommand {
  PlanningInput input;
  bool json = false;
};

// Sizes of cards are named in GB and hold as many GiB. What is between is no room to plan with, it
// goes to fragmentation; but who asks about one layout may be lucky.
constexpr double kAllowance = 1.073741824;

Cluster with_luck(Cluster cluster) {
  for (NodeGroup& group : cluster.groups) {
    if (!group.device.is_cpu()) group.device.memory_bytes *= kAllowance;
  }
  return cluster;
}

// A layout that does not fit is predicted all the same, as on devices with memory enough; then the
// command ends like a plan that does not exist.
int estimate(const EstimateCommand& command) {
  const Job job = load_job(command.input.job, command.input.pins);
  const Cluster cluster = load_cluster(command.input.cluster);
  PlanOptions options = planning_options(command.input, job, 1, false);
  auto answer = try_plan(job, cluster, options);
  std::string misfit, need;
  bool lucky = false;
  if (const auto* none = std::get_if<NoPlan>(&answer)) {
    misfit = none->reason;
    if (!none->closest) throw Error(ErrorKind::no_layout, misfit);
    need = fmt::format("pipeline rank {} takes {:.2f} GB more than {:.2f}",
                       none->closest->pipeline_rank, none->closest->missing_bytes() / 1e9,
                       none->closest->device_bytes / 1e9);
    answer = try_plan(job, with_luck(cluster), options);
    lucky = std::holds_alternative<PlanResult>(answer);
    options.any_memory = true;
    if (!lucky) answer = find_plan(job, cluster, options);
  }
  auto& result = std::get<PlanResult>(answer);
  if (lucky) {
    result.notes.push_back("fits only without fragmentation: " + need +
                           ", of what a card has as it holds so many GiB.");
  } else if (!misfit.empty()) {
    result.notes.push_back("does not fit: " + misfit);
  }
  fmt::print("{}", command.json ? result_json(result, cluster).dump(2) + "\n"
                                : result_table(result, cluster, stdout_takes_colour()));
  if (!misfit.empty() && !lucky) throw Error(ErrorKind::no_layout, misfit);
  return 0;
}

}  // namespace

void add_estimate_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<EstimateCommand>();
  CLI::App* sub = app.add_subcommand(
      "estimate", "predict one layout; what is not pinned takes its fastest value");
  add_planning_options(*sub, command->input);
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer(
      "Example: trireme estimate job.toml --cluster cluster.toml --pin tensor=8 --pin pipeline=4\n"
      "A layout that does not fit is predicted, too, as on devices with memory enough;\n"
      "the exit code is then 3.");
  sub->callback([command, &exit_status] { exit_status = estimate(*command); });
}

}  // namespace trireme
