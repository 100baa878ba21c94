#include "launcher/greeting.h"

#include <fmt/format.h>

#include <utility>

#include "planner/plan/protocol.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

std::string proven_text(const char* role, const AgentIdentity& agent,
                        const std::string& controller_nonce, const std::string& agent_nonce) {
  return fmt::format("trireme {} {}\n{}\n{}\n{}\n{}\n{}", role, kProtocolVersion, agent.generation,
                     agent.pid, controller_nonce, agent_nonce, agent.node);
}

ControllerGreeting::Answer refuse(const std::string& reason) {
  return {.reply = {{"type", "refused"}, {"reason", reason}}, .agent = {}, .refusal = reason};
}

}  // namespace

ControllerGreeting::ControllerGreeting(const Secret& secret, int generation)
    : secret_(secret), generation_(generation), nonce_(random_nonce()) {}

Json ControllerGreeting::challenge() const {
  return {{"type", "challenge"}, {"version", kProtocolVersion}, {"nonce", nonce_}};
}

ControllerGreeting::Answer ControllerGreeting::answer(const Json& hello) const try {
  if (hello.at("type") != "hello") {
    return refuse("the first message was not a hello");
  }
  if (const int version = hello.at("version"); version != kProtocolVersion) {
    return refuse(fmt::format("this agent speaks protocol version {}, the controller version {}",
                              version, kProtocolVersion));
  }
  const AgentIdentity agent{
      .node = hello.at("node"), .generation = hello.at("generation"), .pid = hello.at("pid")};
  const std::string agent_nonce = hello.at("nonce");
  const std::string proof = hello.at("proof");
  if (!secret_.accepts(proof, proven_text("agent", agent, nonce_, agent_nonce))) {
    return refuse("the hello does not prove that its sender knows this run's secret");
  }
  if (agent.generation != generation_) {
    return refuse(fmt::format("this agent belongs to generation {} of the run, which is now in {}",
                              agent.generation, generation_));
  }
  const Json welcome = {
      {"type", "welcome"},
      {"proof", secret_.prove(proven_text("controller", agent, nonce_, agent_nonce))}};
  return {.reply = welcome, .agent = agent, .refusal = {}};
} catch (const Json::exception&) {
  return refuse("the hello lacks a field or has one of the wrong type");
}

AgentGreeting::AgentGreeting(const Secret& secret, AgentIdentity identity)
    : secret_(secret), identity_(std::move(identity)), own_nonce_(random_nonce()) {}

Json AgentGreeting::hello(const Json& challenge) {
  controller_nonce_ = challenge.value("nonce", "");
  const std::string proof =
      secret_.prove(proven_text("agent", identity_, controller_nonce_, own_nonce_));
  return {{"type", "hello"},        {"version", kProtocolVersion},
          {"node", identity_.node}, {"generation", identity_.generation},
          {"pid", identity_.pid},   {"nonce", own_nonce_},
          {"proof", proof}};
}

void AgentGreeting::check(const Json& welcome) const {
  const std::string type = welcome.value("type", "");
  if (type == "refused") {
    throw Error(ErrorKind::failed,
                fmt::format("the controller refused this agent: {}", welcome.value("reason", "")));
  }
  const std::string expected = proven_text("controller", identity_, controller_nonce_, own_nonce_);
  if (type != "welcome" || !secret_.accepts(welcome.value("proof", ""), expected)) {
    throw Error(ErrorKind::failed,
                "the controller could not prove that it knows this run's secret");
  }
}

}  // namespace trireme
