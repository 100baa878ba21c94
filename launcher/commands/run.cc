#include "launcher/commands/run.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "launcher/checkpoints.h"
#include "launcher/clock.h"
#include "launcher/commands/common.h"
#include "launcher/commands/report.h"
#include "launcher/commands/terminal.h"
#include "launcher/controller.h"
#include "launcher/events.h"
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
  std::error_code error;
  if (!fs::exists(resume, error)) {
    throw Error(ErrorKind::bad_input,
                fmt::format("--resume {}: {}, expected a run directory or a checkpoint", resume,
                            error ? error.message() : "found nothing there"));
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

Error unusable(const std::string& directory, const std::string& why) {
  return {ErrorKind::bad_input, fmt::format("--run-dir {}: {}", directory, why)};
}

// A new directory or an empty one; false: it is another's. No two runs get the same.
bool claim(const std::string& name, const std::string& path) {
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    throw unusable(name, "is no directory");
  }
  fs::create_directories(path, error);
  const bool taken = !error && !fs::is_empty(path, error);
  if (error) {
    throw unusable(name, error.message());
  }
  if (taken) {
    return false;
  }
  const int plan = open(RunDirectory{path}.plan().c_str(), O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (plan < 0 && errno != EEXIST) {
    throw unusable(name, std::strerror(errno));
  }
  close(plan);
  return plan >= 0;
}

// Messages hold it as JSON text.
void require_utf8(const std::string& path) {
  try {
    std::ignore = nlohmann::json(path).dump();
  } catch (const nlohmann::json::exception&) {
    throw unusable(printable(path), "is no UTF-8 text");
  }
}

// What a job is called, as part of a file's name.
std::string file_name_of(const std::string& job) {
  constexpr size_t kMost = 80;
  std::string name = job.substr(0, kMost);
  for (char& c : name) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_';
    if (!plain) c = '-';
  }
  return name.starts_with('.') ? "-" + name : name;
}

// Of its own where none is given.
std::string claimed_directory(const RunOptions& options, const Plan& plan) {
  const auto path_of = [](const std::string& name) {
    std::string path = fs::absolute(name).lexically_normal();
    require_utf8(path);
    return path;
  };
  if (!options.run_directory.empty()) {
    if (claim(options.run_directory, path_of(options.run_directory))) {
      return path_of(options.run_directory);
    }
    throw unusable(options.run_directory, "found files in it, expected a new or empty directory");
  }
  const std::string name = fmt::format("runs/{}-{:%Y%m%d-%H%M%S}", file_name_of(plan.job.name),
                                       fmt::localtime(std::time(nullptr)));
  for (int number = 1;; ++number) {
    const std::string next = number == 1 ? name : fmt::format("{}-{}", name, number);
    if (claim(next, path_of(next))) {
      return path_of(next);
    }
  }
}

// With the plan and the job in it.
RunDirectory make_run_directory(const RunOptions& options, const Plan& plan) {
  RunDirectory directory{claimed_directory(options, plan)};
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
    if (std::fflush(stdout) != 0) {
      throw Error(ErrorKind::failed,
                  fmt::format("cannot write the plan to stdout: {}", std::strerror(errno)));
    }
  }
  std::signal(SIGPIPE, SIG_IGN);  // a reader of our output that leaves must not end the training
  const double begin = monotonic_seconds();
  Progress progress(stderr, stderr_rewrites_lines(), plan.job.training.steps);
  const auto starter = make_local_starter(program_path());
  const RunOutcome outcome =
      Controller(controller_setup(plan, directory.root, resume), *starter, progress).run();
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
    say_in_passing(stderr, to_text(*outcome.failure));
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
