#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "planner/plan/job.h"
#include "planner/plan/run_directory.h"
#include "planner/search.h"
#include "topology/cluster.h"

namespace trireme {

// A job and a cluster as a command line names them.
struct PlanningInput {
  std::string job;
  std::string cluster;
  std::vector<std::string>
      pins;                   // "key=value", later ones win over earlier ones and over the job file
  std::string profile;        // a file of `trireme profile`; empty: none
  std::string schedule_file;  // CSV; empty: the built schedules are searched
};

void add_planning_options(CLI::App& command, PlanningInput& input);

Job load_job(const std::string& path, const std::vector<std::string>& pins);

// A cluster of CPU slots on this machine whose cores the file leaves open gets the cores that are
// here. `changes` as in topology/cluster.h.
Cluster load_cluster(const std::string& path, const std::vector<std::string>& changes = {});

void add_pin_option(CLI::App& command, PlanningInput& input);
void add_schedule_option(CLI::App& command, PlanningInput& input);
void add_profile_option(CLI::App& command, PlanningInput& input);

// With a clock for the search's own time, the profile that `input` names, if any, which must be of
// `job`'s model, and its schedule, which must be legal. Throws Error(bad_input).
PlanOptions planning_options(const PlanningInput& input, const Job& job, int top,
                             bool keep_rejections);

// Reads both files and searches.
PlanResult plan_job(const PlanningInput& input, int top, bool keep_rejections);

// Makes the directory, its folders, and the plan and job in it. Throws Error(failed).
void write_run_directory(const RunDirectory& directory, const Plan& plan);

// Throws Error(failed) when the file cannot be written.
void write_text_file(const std::string& path, const std::string& text);

}  // namespace trireme
