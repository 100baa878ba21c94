#pragma once

#include <string>

#include "planner/plan/plan.h"

namespace trireme {

// How the user wants a plan to be run: values of --on and --device.
struct RunTarget {
  std::string on = "local";
  std::string device = "cpu";
  bool emulated() const { return device == "emulated"; }
};

// Says no before anything is started. Throws Error(unavailable) for what this version does not have
// (other targets, bf16, sequence parallelism, recompute, optimizer sharding) and Error(bad_input)
// for a plan whose parts do not go together, that does not fit on this machine, or whose schedule
// the checker refutes (planner/checker.h).
void check_target(const RunTarget& target);
// What is trained; a rehearsal has its own check (launcher/rehearsal.h).
void check_runnable(const Job& job);
void check_runnable(const Plan& plan);
// What a run and a rehearsal have in common: a plan may be written by hand, and its schedules come
// from anywhere. Throws Error(bad_input) for one that cannot run.
void check_schedules(const Plan& plan);

// One rank per device, all on this machine.
inline constexpr int kMaxLocalRanks = 64;

}  // namespace trireme
