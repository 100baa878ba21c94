#include "launcher/commands/common.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "launcher/clock.h"
#include "planner/checker.h"
#include "topology/base/cores.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {

void add_planning_options(CLI::App& command, PlanningInput& input) {
  command.add_option("JOB", input.job, "job file (TOML)")->required();
  command.add_option("--cluster", input.cluster, "cluster file (TOML)")->required();
  add_pin_option(command, input);
  add_schedule_option(command, input);
  add_profile_option(command, input);
}

void add_pin_option(CLI::App& command, PlanningInput& input) {
  command
      .add_option(
          "--pin", input.pins,
          "fix one choice, as in tensor=8: tensor, pipeline, data, chunks, schedule, micro_batch,\n"
          "sequence_parallel, recompute (none, selective, full), recompute_ranks,\n"
          "optimizer_sharding (0, 1), even_cut")
      ->allow_extra_args(false);
}

void add_schedule_option(CLI::App& command, PlanningInput& input) {
  command.add_option("--schedule-file", input.schedule_file,
                     "plan with the schedule of this CSV, its pipeline ranks and micro-batches");
}

void add_profile_option(CLI::App& command, PlanningInput& input) {
  command.add_option(
      "--profile", input.profile,
      "measured times of this job: on CPU ranks from `trireme profile`, on accelerators\n"
      "written by hand (docs/profile.md)");
}

Job load_job(const std::string& path, const std::vector<std::string>& pins) {
  Job job = read_job(path);
  set_pins(job.pins, pins);
  return job;
}

Cluster load_cluster(const std::string& path, const std::vector<std::string>& changes) {
  Cluster cluster = read_cluster(path, changes);
  for (NodeGroup& group : cluster.groups) {
    const bool here = group.hosts.size() == 1 && group.hosts.front() == "localhost";
    if (group.device.is_cpu() && group.cores == 0 && here) {
      group.cores = usable_cores();
    }
  }
  return cluster;
}

namespace {

Schedule read_own_schedule(const std::string& path) {
  Schedule schedule = parse_schedule_csv(read_text_file(path), path);
  const Verdict verdict = check_schedule(schedule);
  if (!verdict.legal) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: {} (`trireme schedule --file` says more)", path, verdict.reason));
  }
  const auto forward = [](const Op& op) { return op.kind == OpKind::forward; };
  const std::vector<Op>& ops = schedule.ranks.front();
  if (std::all_of(ops.begin(), ops.end(), forward)) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: found forwards only, expected a schedule that trains", path));
  }
  schedule.name = std::filesystem::path(path).filename();
  return schedule;
}

}  // namespace

PlanOptions planning_options(const PlanningInput& input, const Job& job, int top,
                             bool keep_rejections) {
  PlanOptions options;
  if (!input.profile.empty()) {
    const auto profile = std::make_shared<Profile>(read_profile(input.profile));
    check_profile(*profile, job);
    options.profile = profile;
  }
  if (!input.schedule_file.empty()) {
    Pins asked;
    set_pins(asked, input.pins);
    if (asked.schedule) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("--pin schedule={} and --schedule-file {}: expected one of them",
                              *asked.schedule, input.schedule_file));
    }
    options.schedule = std::make_shared<Schedule>(read_own_schedule(input.schedule_file));
  }
  options.top = top;
  options.keep_rejections = keep_rejections;
  options.clock = monotonic_seconds;
  return options;
}

PlanResult plan_job(const PlanningInput& input, int top, bool keep_rejections) {
  const Job job = load_job(input.job, input.pins);
  const Cluster cluster = load_cluster(input.cluster);
  return find_plan(job, cluster, planning_options(input, job, top, keep_rejections));
}

void write_run_directory(const RunDirectory& directory, const Plan& plan) {
  for (const std::string& part : {directory.logs(), directory.checkpoints(), directory.trace()}) {
    std::error_code error;
    std::filesystem::create_directories(part, error);
    if (error) throw Error(ErrorKind::failed, fmt::format("{}: {}", part, error.message()));
  }
  write_text_file(directory.plan(), to_toml(plan));
  write_text_file(directory.job(), to_toml(plan.job));
}

void write_text_file(const std::string& path, const std::string& text) {
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return;
  const std::string why = errno == 0 ? "writing failed" : std::strerror(errno);
  throw Error(ErrorKind::failed, fmt::format("{}: cannot be written: {}", path, why));
}

}  // namespace trireme
