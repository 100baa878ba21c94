#include "launcher/commands/run.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "launcher/checkpoints.h"
#include "launcher/clock.h"
#include "launcher/commands/common.h"
#include "launcher/commands/report.h"
#include "launcher/controller.h"
#include "launcher/preflight.h"
#include "launcher/process.h"
#include "launcher/progress.h"
#include "launcher/rehearsal.h"
#include "launcher/run_report.h"
#include "planner/plan/run_directory.h"
#include "topology/base/error.h"
#include "topology/base/say.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

struct RunOptions {
  PlanningInput input;  // the job may also be a plan
  RunTarget target;
  std::string run_directory;
  std::string resume;
  RehearsalOptions rehearsal;
  bool json = false;
};

// Options that go with one kind of device only.
void check_options(const RunOptions& options) {
  check_target(options.target);
  if (!options.target.emulated() && options.rehearsal.any()) {
    throw Error(ErrorKind::bad_input,
                "--op-times, --wire-scale, --time-scale and --steps are for --device emulated");
  }
  if (options.target.emulated()) {
    rehearsal_of(options.rehearsal);
    if (!options.resume.empty()) {
      throw Error(ErrorKind::bad_input, "--resume: a rehearsal has no weights to continue from");
    }
  }
}

Plan obtain_plan(const RunOptions& options) {
  const PlanningInput& input = options.input;
  const std::string text = read_text_file(input.job);
  if (is_plan_file(text)) {
    if (!input.cluster.empty() || !input.pins.empty() || !input.profile.empty() ||
        !input.schedule_file.empty()) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("{} is a plan, which has its cluster and layout: --cluster, --pin, "
                              "--schedule-file and --profile are for jobs",
                              input.job));
    }
    return parse_plan(text, input.job);
  }
  if (input.cluster.empty()) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{} is a job: --cluster CLUSTER says what to plan it for", input.job));
  }
  if (!options.target.emulated()) {
    check_runnable(load_job(input.job, input.pins));  // before a search that would be in vain
  }
  return plan_job(input, 1, false).plan;
}

// Where to continue from, or an empty text. Says which checkpoints were passed over.
std::string obtain_checkpoint(const std::string& resume, int steps) {
  if (resume.empty()) {
    return "";
  }
  if (!fs::exists(resume)) {
    throw Error(ErrorKind::bad_input,
                fmt::format("--resume {}: found nothing there, expected a run "
                            "directory or a checkpoint",
                            resume));
  }
  std::vector<std::string> skipped;
  const auto found = find_checkpoint(resume, skipped);
  for (const std::string& sentence : skipped) {
    say(stderr, "{}\n", sentence);
  }
  if (!found) {
    throw Error(ErrorKind::bad_input,
                fmt::format("--resume {}: found no checkpoint that can be trusted", resume));
  }
  say(stderr, "continuing from {} after {} steps{}\n", found->directory, found->step,
      found->step >= steps ? ", which are all: nothing is left to train" : "");
  return found->directory;
}

// An empty or new directory with the plan and the job in it.
RunDirectory make_run_directory(const RunOptions& options, const Plan& plan) {
  const std::string name = options.run_directory.empty()
                               ? fmt::format("runs/{}-{:%Y%m%d-%H%M%S}", plan.job.name,
                                             fmt::localtime(std::time(nullptr)))
                               : options.run_directory;
  RunDirectory directory{fs::absolute(name).lexically_normal()};
  std::error_code error;
  if (fs::exists(directory.root) && !fs::is_empty(directory.root, error)) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("--run-dir {}: found files in it, expected a new or empty directory", name));
  }
  write_run_directory(directory, plan);
  if (options.target.emulated()) {
    write_text_file(directory.rehearsal(), to_toml(rehearsal_of(options.rehearsal)));
  }
  return directory;
}

int run(const RunOptions& options) {
  check_options(options);
  const bool emulated = options.target.emulated();
  const Plan plan =
      emulated ? rehearsed_plan(obtain_plan(options), options.rehearsal) : obtain_plan(options);
  if (!emulated) {
    check_runnable(plan);
  }
  const std::string resume = obtain_checkpoint(options.resume, plan.job.training.steps);
  const RunDirectory directory = make_run_directory(options, plan);
  if (!options.json) {
    fmt::print("{}run directory: {}\n\n", plan_table(plan), directory.root);
    std::fflush(stdout);
  }
  std::signal(SIGPIPE, SIG_IGN);  // a reader of our output that leaves must not end the training
  const double begin = monotonic_seconds();
  Progress progress(stderr, isatty(STDERR_FILENO) == 1, plan.job.training.steps);
  const auto starter = make_local_starter(program_path());
  Controller controller(controller_setup(plan, directory.root, resume), *starter, progress);
  const RunOutcome outcome = controller.run();
  progress.close();
  remove_partial_checkpoints(directory.root);
  const RunReport report{plan,
                         outcome,
                         progress.totals(),
                         directory.root,
                         merge_traces(directory.root, plan.layout.ranks()),
                         monotonic_seconds() - begin,
                         emulated};
  if (options.json) {
    fmt::print("{}\n", to_json(report).dump());
  } else if (!outcome.failure) {
    fmt::print("{}", summary_text(report));
  }
  std::fflush(stdout);
  if (outcome.failure) {
    say(stderr, "{}", to_text(*outcome.failure));
  }
  return outcome.exit_code;
}

void add_rehearsal_options(CLI::App& command, RehearsalOptions& options) {
  command.add_option("--op-times", options.op_times,
                     "emulated: seconds of every stage's ops, as f=0.01,i=0.01,w=0.01,hop=0 "
                     "(default: what the plan predicts)");
  command.add_option("--wire-scale", options.wire_scale,
                     "emulated: share of each message that is really sent (default 1)");
  command.add_option("--time-scale", options.time_scale,
                     "emulated: real seconds per predicted second (default 1)");
  command.add_option("--steps", options.steps,
                     fmt::format("emulated: steps to rehearse (default {})", kRehearsedSteps));
}

}  // namespace

void add_run_command(CLI::App& app, int& exit_status) {
  const auto options = std::make_shared<RunOptions>();
  CLI::App* command =
      app.add_subcommand("run", "trains a job: plans if needed, launches, supervises, reports");
  command
      ->add_option("JOB", options->input.job,
                   "a job file, or a plan file written by `trireme plan`")
      ->required();
  command->add_option("--cluster", options->input.cluster, "the cluster file to plan a job for");
  command
      ->add_option("--pin", options->input.pins,
                   "fix one choice of the layout, as key=value; may be repeated")
      ->allow_extra_args(false);
  add_schedule_option(*command, options->input);
  add_profile_option(*command, options->input);
  command->add_option("--on", options->target.on, "where the ranks run: local")
      ->capture_default_str();
  command
      ->add_option("--device", options->target.device,
                   "what the ranks compute on: cpu, or emulated to rehearse the plan")
      ->capture_default_str();
  add_rehearsal_options(*command, options->rehearsal);
  command->add_option("--run-dir", options->run_directory,
                      "where everything about the run is kept (default runs/JOB-TIME)");
  command->add_option(
      "--resume", options->resume,
      "continue from a run directory's newest sound checkpoint, or from one checkpoint directory");
  command->add_flag("--json", options->json, "print one JSON object about the run at its end");
  command->footer(
      "Example:\n  trireme run configs/jobs/quickstart.toml --cluster "
      "configs/clusters/laptop.toml");
  command->callback([options, &exit_status] { exit_status = run(*options); });
}

}  // namespace trireme
