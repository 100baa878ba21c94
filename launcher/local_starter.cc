#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

#include "launcher/process.h"
#include "launcher/starter.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// A pipe that already holds the text, ready to be somebody's standard input.
Descriptor pipe_with(const std::string& text) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    throw Error(ErrorKind::failed, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  Descriptor reading(ends[0]);
  const Descriptor writing(ends[1]);
  if (write(writing.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw Error(ErrorKind::failed, "an agent's order does not fit into a pipe");
  }
  fcntl(reading.get(), F_SETFL, 0);  // the agent reads as usual
  return reading;
}

class LocalStarter : public AgentStarter {
 public:
  explicit LocalStarter(std::string program) : program_(std::move(program)) {}
  ~LocalStarter() override = default;

  void start(const AgentOrder& order) override {
    AgentOrder here = order;
    here.listen = "127.0.0.1";
    const Descriptor input = pipe_with(to_json(here).dump() + "\n");
    // What an agent has to say goes to the diagnostics, never into the results on stdout.
    const ProcessSpec spec{.arguments = {program_, "agent"},
                           .environment = {},
                           .descriptors = {{0, input.get()}, {1, STDERR_FILENO}},
                           .dies_with_parent = false};  // it must outlive us to name us
    agents_.emplace(order.node, Process::start(spec));
  }

  std::vector<Ended> collect() override {
    std::vector<Ended> ended;
    for (auto it = agents_.begin(); it != agents_.end();) {
      if (const auto status = it->second.poll()) {
        ended.push_back({it->first, *status});
        it = agents_.erase(it);
      } else {
        ++it;
      }
    }
    return ended;
  }

  void end_all() override {
    using namespace std::chrono_literals;
    await(500ms);
    for (auto& [node, agent] : agents_) {
      agent.signal(SIGKILL);
    }
    await(2000ms);
  }

 private:
  void await(std::chrono::milliseconds longest) {
    constexpr std::chrono::milliseconds kPause{5};
    for (auto waited = kPause; !agents_.empty() && waited < longest; waited += kPause) {
      collect();
      if (!agents_.empty()) {
        std::this_thread::sleep_for(kPause);
      }
    }
  }

  std::string program_;
  std::map<std::string, Process> agents_;  // by node
};

}  // namespace

Json to_json(const AgentOrder& order) {
  return {{"node", order.node},
          {"controller_address", order.controller_address},
          {"controller_port", order.controller_port},
          {"secret", order.secret.hex()},
          {"generation", order.generation},
          {"run_directory", order.run_directory},
          {"listen", order.listen}};
}

AgentOrder parse_agent_order(std::string_view line) try {
  const Json json = Json::parse(line);
  return {.node = json.at("node"),
          .controller_address = json.at("controller_address"),
          .controller_port = json.at("controller_port"),
          .secret = Secret::from_hex(json.at("secret").get<std::string>()),
          .generation = json.at("generation"),
          .run_directory = json.at("run_directory"),
          .listen = json.at("listen")};
} catch (const Json::exception&) {
  throw Error(
      ErrorKind::failed,
      "no order on standard input: `trireme agent` is started by `trireme run`, never by hand");
}

std::unique_ptr<AgentStarter> make_local_starter(const std::string& program) {
  return std::make_unique<LocalStarter>(program);
}

}  // namespace trireme
