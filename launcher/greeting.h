#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "launcher/secret.h"

namespace trireme {

// How a controller and an agent convince each other that they belong to the same run, as a pure
// exchange of messages:
//
//   controller  {"type":"challenge", "version":, "nonce":}
//   agent       {"type":"hello", "version":, "generation":, "node":, "pid":, "nonce":, "proof":}
//   controller  {"type":"welcome", "proof":}   or   {"type":"refused", "reason":}
//
// A proof is the HMAC-SHA256 of the role, both nonces and everything the hello says. Each side
// chose one nonce for this connection only, so a recorded proof is worthless on the next one; the
// role keeps a proof from being sent back to its maker.

// Who an agent is, as its hello says.
struct AgentIdentity {
  std::string node;
  int generation = 0;
  int64_t pid = 0;
};

// The controller's side of one connection.
class ControllerGreeting {
 public:
  ControllerGreeting(const Secret& secret, int generation);

  nlohmann::json challenge() const;

  struct Answer {
    nlohmann::json reply;                // to be sent in any case
    std::optional<AgentIdentity> agent;  // nothing: refused, close the connection
    std::string refusal;                 // why, when refused
  };
  Answer answer(const nlohmann::json& hello) const;

 private:
  const Secret& secret_;
  int generation_;
  std::string nonce_;
};

// The agent's side of one connection.
class AgentGreeting {
 public:
  AgentGreeting(const Secret& secret, AgentIdentity identity);

  nlohmann::json hello(const nlohmann::json& challenge);
  // Throws Error(failed) with the controller's reason when refused, or when it cannot prove itself.
  void check(const nlohmann::json& welcome) const;

 private:
  const Secret& secret_;
  AgentIdentity identity_;
  std::string own_nonce_;
  std::string controller_nonce_;
};

}  // namespace trireme
