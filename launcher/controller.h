#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "launcher/controller_state.h"
#include "launcher/starter.h"

namespace trireme {

// Who watches a run. Called on the controller's thread.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void say(const std::string& text) = 0;
  virtual void step(const nlohmann::json& metrics) = 0;
};

// Runs a ControllerState on real sockets, clock and signals: listens on the loopback address, has
// an agent started for every node, and supervises until nothing is left. Writes events.jsonl and
// metrics.jsonl of the run directory. SIGINT, SIGTERM and SIGHUP to this process mean "stop" while
// run() runs, SIGHUP only where it was not ignored before.
//
// Whoever connects without knowing the run's secret is given kGreetingSeconds, kMaxGreetingBytes
// and one of a bounded number of seats, then closed and counted.
class Controller {
 public:
  // Throws Error(failed) when it cannot listen or cannot write to the run directory.
  Controller(ControllerSetup setup, AgentStarter& starter, RunObserver& observer);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  uint16_t port() const;
  // Blocks until the run has ended and its agents are gone. Once only.
  RunOutcome run();

  static constexpr double kGreetingSeconds = 2;
  static constexpr int kStrangerSeats = 64;  // besides one for each expected agent

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

}  // namespace trireme
