#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "launcher/commands/agent.h"
#include "launcher/commands/estimate.h"
#include "launcher/commands/plan.h"
#include "launcher/commands/profile.h"
#include "launcher/commands/run.h"
#include "launcher/commands/schedule.h"
#include "launcher/commands/show.h"
#include "topology/base/error.h"
#include "topology/base/say.h"
#include "topology/base/toml_reader.h"

namespace {

// Commands of the design that this version lacks: not in --help, and honest when called.
void add_missing_commands(CLI::App& app) {
  for (const char* name : {"submit", "status", "logs", "cancel", "discover", "export"}) {
    CLI::App* command = app.add_subcommand(name)->group("");
    command->allow_extras();
    command->callback([name] {
      throw trireme::Error(trireme::ErrorKind::unavailable,
                           fmt::format("\"{}\" is not part of this version yet", name));
    });
  }
}

// An empty word is a variable that was not set, not an option that was left out.
void refuse_empty_values(CLI::App& app) {
  for (CLI::App* command : app.get_subcommands({})) {
    for (CLI::Option* option : command->get_options()) {
      option->check([](const std::string& text) {
        return text.empty() ? std::string("found an empty value") : std::string();
      });
    }
  }
}

// What was meant by the word, or where to find it.
std::string hint(const std::string& word, const std::vector<std::string>& names,
                 const std::string& otherwise) {
  const auto nearest = trireme::nearest_name(word, names);
  return nearest ? fmt::format("did you mean {}?", *nearest) : otherwise;
}

trireme::Error no_such_command(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return {trireme::ErrorKind::bad_input,
          fmt::format("no command is called \"{}\"; {}", word,
                      hint(word, names, "trireme --help lists them"))};
}

// Of a command's words the first that belongs to none of its options.
trireme::Error stray_word(const CLI::App& app) {
  const CLI::App* command = app.get_subcommands().front();
  const std::string word = command->remaining().front();
  std::vector<std::string> names;
  for (const CLI::Option* option : command->get_options()) names.push_back(option->get_name());
  if (!word.starts_with('-')) names.clear();
  return {
      trireme::ErrorKind::bad_input,
      fmt::format("{}: found \"{}\", which it does not know; {}", command->get_name(), word,
                  hint(word, names,
                       fmt::format("trireme {} --help lists what it does", command->get_name())))};
}

int run(int argc, char** argv) {
  CLI::App app("Plans, launches and runs 3D-parallel training of transformers.", "trireme");
  app.require_subcommand(1);
  app.footer(
      "trireme COMMAND --help tells more. Example: trireme plan job.toml --cluster cluster.toml");
  int exit_status = 0;
  trireme::add_plan_command(app, exit_status);
  trireme::add_estimate_command(app, exit_status);
  trireme::add_show_command(app, exit_status);
  trireme::add_schedule_command(app, exit_status);
  trireme::add_run_command(app, exit_status);
  trireme::add_profile_command(app, exit_status);
  trireme::add_agent_command(app, exit_status);
  add_missing_commands(app);
  refuse_empty_values(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    throw stray_word(app);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
      throw no_such_command(app, argv[1]);
    }
    // CLI11 numbers its complaints; here all of them are bad usage.
    return app.exit(error) == 0 ? 0 : trireme::exit_code(trireme::ErrorKind::bad_input);
  }
  return exit_status;
}

// Where a standard stream is closed, the next file that is opened would take its place.
void occupy_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) == -1) open("/dev/null", O_RDONLY);
  }
}

// Whoever started this may have had signals ignored or blocked: it could not be stopped then, nor
// learn how its own processes end.
void take_signals() {
  std::signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// An agent has some for each of its ranks, which may be hundreds.
void allow_many_descriptors() {
  constexpr rlim_t kEnough = 65536;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kEnough) return;
  limit.rlim_cur = std::min(limit.rlim_max, kEnough);
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Results that could not be written are no results.
int with_results_written(int exit_status) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_status;
  trireme::say(stderr, "trireme: cannot write the results to stdout: {}\n", std::strerror(errno));
  return exit_status == 0 ? trireme::exit_code(trireme::ErrorKind::failed) : exit_status;
}

}  // namespace

int main(int argc, char** argv) {
  occupy_standard_streams();
  take_signals();
  allow_many_descriptors();
  try {
    return with_results_written(run(argc, argv));
  } catch (const trireme::Error& error) {
    trireme::say(stderr, "trireme: {}\n", error.what());
    return trireme::exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    std::fputs("trireme: this machine gives the command no more memory\n", stderr);
    return trireme::exit_code(trireme::ErrorKind::failed);
  } catch (const std::exception& error) {
    trireme::say(stderr, "trireme: {}\n", error.what());
    return 1;
  }
}
