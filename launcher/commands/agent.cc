#include "launcher/commands/agent.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <string>

#include "launcher/agent.h"

namespace trireme {
namespace {

// The order holds the secret: it is read here once and nobody else inherits the pipe.
std::string read_order() {
  constexpr size_t kLongest = 65536;
  std::string line;
  char c = 0;
  while (line.size() < kLongest && read(STDIN_FILENO, &c, 1) == 1 && c != '\n') {
    line += c;
  }
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(nothing, STDIN_FILENO);
  close(nothing);
  return line;
}

}  // namespace

void add_agent_command(CLI::App& app, int& exit_status) {
  CLI::App* command =
      app.add_subcommand("agent", "runs the ranks of one node; started by `trireme run`");
  command->group("");
  command->callback([&exit_status] {
    std::signal(SIGPIPE, SIG_IGN);  // the terminal may be gone when there is somebody to blame
    exit_status = run_agent(parse_agent_order(read_order()));
  });
}

}  // namespace trireme
