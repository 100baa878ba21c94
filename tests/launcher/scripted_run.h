#pragma once

// Drives real controllers, agents and fake ranks (fake_rank.cc) for tests.

#include <sys/types.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launcher/controller.h"

namespace trireme::testing {

// A run directory that is removed with its owner.
class ScratchRun {
 public:
  ScratchRun();
  ~ScratchRun();
  ScratchRun(const ScratchRun&) = delete;
  ScratchRun& operator=(const ScratchRun&) = delete;
  const std::string& path() const { return path_; }
  std::string read(const std::string& name) const;
  std::vector<nlohmann::json> events() const;
  // The first event of that name, for `rank` where one is given; null until it is written.
  nlohmann::json event(const std::string& name, int rank = -1) const;
  // Waits for it; fails the test after `seconds`.
  nlohmann::json await(const std::string& name, int rank = -1, double seconds = 15) const;

 private:
  std::string path_;
};

// `nodes` nodes with `per_node` ranks each; rank r is "r<r>".
ControllerSetup setup_of(int nodes, int per_node, const std::string& run_directory);

class SilentObserver : public RunObserver {
 public:
  void say(const std::string& text) override { said += text + "\n"; }
  void step(const nlohmann::json& metrics) override { steps.push_back(metrics); }
  std::string said;
  std::vector<nlohmann::json> steps;
};

// A controller in a process of its own, as `trireme run` would be: its agents and ranks are real
// processes.
class ControllerProcess {
 public:
  ControllerProcess(const ScratchRun& run, int nodes, int per_node,
                    const std::map<std::string, std::string>& fakes);
  ~ControllerProcess();
  ControllerProcess(const ControllerProcess&) = delete;
  ControllerProcess& operator=(const ControllerProcess&) = delete;
  pid_t pid() const { return pid_; }
  // The exit code, or minus the signal. Fails the test after `seconds`.
  int wait(double seconds = 20);

 private:
  pid_t pid_;
  bool reaped_ = false;
};

// Processes that carry the run directory's path in their command line or are its agents: what must
// be gone afterwards.
std::vector<pid_t> processes_of(const ScratchRun& run);
// True as soon as none of them is left, within `seconds`.
bool all_gone(const ScratchRun& run, double seconds);

bool alive(pid_t pid);

}  // namespace trireme::testing
