#include "launcher/exit_status.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>

namespace trireme {

ExitStatus exit_status(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return {.signal = WTERMSIG(wait_status)};
  }
  return {.code = WEXITSTATUS(wait_status)};
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? fmt::format("signal {}", signal) : fmt::format("SIG{}", name);
}

std::string describe(const ExitStatus& status) {
  if (status.signal == 0) {
    return fmt::format("exited with code {}", status.code);
  }
  std::string text =
      fmt::format("killed by signal {} ({})", status.signal, signal_name(status.signal));
  if (status.signal == SIGKILL && !status.by_us) {
    text += ", not sent by trireme: somebody's kill -9 or the kernel out of memory (see dmesg)";
  }
  if (status.signal == SIGBUS) {
    text += ": a file that it reads became shorter, or its disk failed";
  }
  return text;
}

nlohmann::json to_json(const ExitStatus& status) {
  return {{"code", status.code}, {"signal", status.signal}, {"by_us", status.by_us}};
}

ExitStatus parse_exit_status(const nlohmann::json& json) {
  return {.code = json.at("code"), .signal = json.at("signal"), .by_us = json.at("by_us")};
}

}  // namespace trireme
