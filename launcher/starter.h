#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launcher/exit_status.h"
#include "launcher/secret.h"

namespace trireme {

// All that an agent must be told before it can call its controller. It travels as one line of JSON
// over the agent's standard input, because it holds the secret.
struct AgentOrder {
  std::string node;
  std::string controller_address;  // IP address
  uint16_t controller_port = 0;
  Secret secret;
  int generation = 1;  // of the run: agents of an earlier one are refused
  std::string run_directory;
  // Name or address of this node, by which the ranks of others reach its own.
  std::string listen = {};
};
nlohmann::json to_json(const AgentOrder& order);
// Throws Error(failed) when the text is not an order.
AgentOrder parse_agent_order(std::string_view line);

// How agents come to life on the nodes: the one thing in which this machine, ssh, MPI and Slurm
// differ. Called from the controller's thread only; no function blocks for long.
class AgentStarter {
 public:
  struct Ended {
    std::string node;
    ExitStatus status;
  };

  virtual ~AgentStarter() = default;
  // Throws Error(failed) when the agent cannot be started.
  virtual void start(const AgentOrder& order) = 0;
  // The agents that ended since the last call, as far as this starter can see them.
  virtual std::vector<Ended> collect() = 0;
  // Waits a moment for agents that are leaving, then kills what is left.
  virtual void end_all() = 0;
};

// Every node of the plan on this machine, whatever its name: one process per node that runs
// `program agent`.
std::unique_ptr<AgentStarter> make_local_starter(const std::string& program);

}  // namespace trireme
