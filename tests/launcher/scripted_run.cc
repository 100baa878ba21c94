#include "tests/launcher/scripted_run.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::string kBinaries = TRIREME_BINARY_DIR;

template <class Condition>
bool eventually(double seconds, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

[[noreturn]] void be_controller(const std::string& directory, int nodes, int per_node,
                                const std::map<std::string, std::string>& fakes) {
  std::ignore = std::freopen((directory + "/console").c_str(), "w", stderr);
  setenv("TRIREME_RANK_PROGRAM", (kBinaries + "/fake-rank").c_str(), 1);
  // The thread sanitizer has a process linger for a second at its exit; real ones are gone at once.
  setenv("TSAN_OPTIONS", "atexit_sleep_ms=0", 0);
  setenv("FAKE_RANKS", std::to_string(nodes * per_node).c_str(), 1);
  for (const auto& [name, value] : fakes) {
    setenv(name.c_str(), value.c_str(), 1);
  }
  int code = 99;
  try {
    SilentObserver observer;
    const auto starter = make_local_starter(kBinaries + "/trireme");
    Controller controller(setup_of(nodes, per_node, directory), *starter, observer);
    const RunOutcome outcome = controller.run();
    fmt::print(stderr, "{}{}", observer.said, outcome.failure ? to_text(*outcome.failure) : "");
    std::ofstream(directory + "/outcome.json")
        << Json{{"exit", outcome.exit_code},
                {"stopped", outcome.stopped},
                {"checkpoint", outcome.checkpoint},
                {"failure", outcome.failure ? to_json(*outcome.failure) : Json()}};
    code = outcome.exit_code;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  std::fflush(stderr);
  _exit(code);
}

}  // namespace

ScratchRun::ScratchRun() {
  std::string name = fs::temp_directory_path() / "trireme-run-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    throw std::runtime_error("no scratch directory");
  }
  path_ = name;
  fs::create_directories(path_ + "/logs");
  fs::create_directories(path_ + "/checkpoints");
}

ScratchRun::~ScratchRun() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string ScratchRun::read(const std::string& name) const {
  return read_file(path_ + "/" + name);
}

std::vector<Json> ScratchRun::events() const {
  std::vector<Json> all;
  std::istringstream lines(read("events.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    all.push_back(Json::parse(line));
  }
  return all;
}

Json ScratchRun::event(const std::string& name, int rank) const {
  for (const Json& event : events()) {
    if (event["event"] == name && (rank < 0 || event.value("rank", -1) == rank)) {
      return event;
    }
  }
  return nullptr;
}

Json ScratchRun::await(const std::string& name, int rank, double seconds) const {
  Json found;
  EXPECT_TRUE(eventually(seconds, [&] { return !(found = event(name, rank)).is_null(); }))
      << "no event " << name << " in\n"
      << read("events.jsonl") << read("console");
  return found;
}

ControllerSetup setup_of(int nodes, int per_node, const std::string& run_directory) {
  ControllerSetup setup;
  for (int n = 0; n < nodes; ++n) {
    setup.nodes.push_back(fmt::format("node{}", n));
    for (int d = 0; d < per_node; ++d) {
      setup.rank_names.push_back(fmt::format("r{}", setup.rank_names.size()));
      setup.node_of_rank.push_back(n);
    }
  }
  setup.run_directory = run_directory;
  return setup;
}

ControllerProcess::ControllerProcess(const ScratchRun& run, int nodes, int per_node,
                                     const std::map<std::string, std::string>& fakes)
    : pid_(fork()) {
  if (pid_ == 0) {
    be_controller(run.path(), nodes, per_node, fakes);
  }
}

ControllerProcess::~ControllerProcess() {
  if (!reaped_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

int ControllerProcess::wait(double seconds) {
  int status = 0;
  reaped_ = eventually(seconds, [&] { return waitpid(pid_, &status, WNOHANG) == pid_; });
  EXPECT_TRUE(reaped_) << "the controller is still there after " << seconds << " s";
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

std::vector<pid_t> processes_of(const ScratchRun& run) {
  std::vector<pid_t> pids;
  for (const Json& event : run.events()) {
    const pid_t pid = event.value("pid", 0);
    if (pid > 0 && alive(pid)) {
      pids.push_back(pid);
    }
  }
  return pids;
}

bool all_gone(const ScratchRun& run, double seconds) {
  return eventually(seconds, [&] { return processes_of(run).empty(); });
}

// A zombie that nobody reaps is as good as gone: it runs nothing and holds nothing.
bool alive(pid_t pid) {
  const std::string stat = read_file(fmt::format("/proc/{}/stat", pid));
  const size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && name_end + 2 < stat.size() && stat[name_end + 2] != 'Z';
}

}  // namespace trireme::testing
