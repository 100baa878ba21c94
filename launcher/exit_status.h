#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace trireme {

// How a process ended.
struct ExitStatus {
  int code = 0;        // when signal is 0
  int signal = 0;      // 0: it exited by itself
  bool by_us = false;  // the signal was sent by trireme, to end the run

  bool clean() const { return signal == 0 && code == 0; }
  bool operator==(const ExitStatus&) const = default;
};

// From the status that waitpid gives.
ExitStatus exit_status(int wait_status);

// "killed by signal 9 (SIGKILL)", "exited with code 3"
std::string describe(const ExitStatus& status);
std::string signal_name(int signal);

nlohmann::json to_json(const ExitStatus& status);
ExitStatus parse_exit_status(const nlohmann::json& json);

}  // namespace trireme
