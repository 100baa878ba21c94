// A rank that computes nothing: it speaks the control protocol, counts steps, and misbehaves when
// told to. What it does is read from the environment:
//   FAKE_STEPS=n          steps to take (default 20)
//   FAKE_STEP_MS=t        how long each takes (default 20)
//   FAKE_FAULT=what@r:s   what rank r does in step s: crash (SIGSEGV), exit0, exit3, fail (an error
//   of its own), hang
//                         (SIGSTOP), garbage (nonsense on the control socket), or linger (ignores
//                         SIGTERM, never stops)
//   FAKE_PEER_LOST=1      the other ranks notice that rank r is gone, say so and exit before the
//   launcher can
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "planner/plan/run_directory.h"
#include "planner/plan/schedule.h"
#include "runtime/control/control_client.h"

namespace {

using trireme::ControlClient;
using trireme::Error;
using trireme::ErrorKind;

std::string setting(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value == nullptr ? fallback : value;
}

struct Fault {
  std::string what;
  int rank = -1;
  int step = -1;
};

Fault planned_fault() {
  const std::string text = setting("FAKE_FAULT", "");
  const size_t at = text.find('@');
  const size_t colon = text.find(':');
  if (at == std::string::npos || colon == std::string::npos) {
    return {};
  }
  return {text.substr(0, at), std::stoi(text.substr(at + 1, colon - at - 1)),
          std::stoi(text.substr(colon + 1))};
}

void commit(const Fault& fault, ControlClient& control) {
  fmt::print("about to do: {}\n", fault.what);
  std::fflush(stdout);
  if (fault.what == "crash") {
    std::signal(SIGSEGV, SIG_DFL);  // a sanitizer would make an exit code of it
    std::raise(SIGSEGV);
  } else if (fault.what == "exit0") {
    _exit(0);
  } else if (fault.what == "exit3") {
    _exit(3);
  } else if (fault.what == "fail") {
    throw Error(ErrorKind::failed, "the loss is not a number");
  } else if (fault.what == "hang") {
    std::raise(SIGSTOP);
  } else if (fault.what == "garbage") {
    (void)!write(trireme::kControlDescriptor, "\0\0\0\4{{{{", 8);
  } else if (fault.what == "linger") {
    std::signal(SIGTERM, SIG_IGN);
    for (;;) {
      pause();
    }
  }
  (void)control;
}

void save(ControlClient& control, const trireme::RunDirectory& run, int step) {
  control.status().doing = static_cast<int>(trireme::StatusPage::Doing::saving);
  std::filesystem::create_directories(run.checkpoint(step));
  std::ofstream(run.checkpoint(step) + "/manifest.json")
      << fmt::format("{{\"step\":{},\"files\":[]}}", step);
  control.report_checkpoint(step, run.checkpoint(step));
}

void take_step(ControlClient& control, int rank, int step, double seconds) {
  control.status().doing = static_cast<int>(trireme::StatusPage::Doing::op);
  control.status().step = step;
  control.status().op_kind = static_cast<int>(trireme::OpKind::backward);
  control.status().stage = 3;
  control.status().micro_batch = 7;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  control.report_busy(step, 0.75 * seconds, seconds);
  if (rank == 0) {
    control.report_step({{"step", step},
                         {"loss", 5.0 / (step + 1)},
                         {"step_seconds", seconds},
                         {"tokens_per_second", 1024 / seconds}});
  }
}

// Every rank sets its key and waits for all others: the rendezvous of a real run.
void meet(ControlClient& control, int rank, int ranks) {
  control.set(fmt::format("here/{}", rank), fmt::format("rank {}", rank));
  for (int other = 0; other < ranks; ++other) {
    if (control.get(fmt::format("here/{}", other), std::chrono::seconds(20)) !=
        fmt::format("rank {}", other)) {
      throw Error(ErrorKind::failed, "the store gave back another value");
    }
  }
}

int run(const trireme::RunDirectory& directory, int rank) {
  ControlClient control{trireme::Rank(rank)};
  const Fault fault = planned_fault();
  const int steps = std::stoi(setting("FAKE_STEPS", "20"));
  const double seconds = std::stod(setting("FAKE_STEP_MS", "20")) / 1000;
  try {
    meet(control, rank, std::stoi(setting("FAKE_RANKS", "1")));
    control.started();
    int step = 0;
    for (; step < steps && !control.stop_requested(); ++step) {
      if (fault.step == step && fault.rank == rank) {
        commit(fault, control);
      } else if (fault.step == step && setting("FAKE_PEER_LOST", "0") == "1") {
        throw Error(ErrorKind::peer_lost, fmt::format("connection to r{} reset", fault.rank));
      }
      take_step(control, rank, step, seconds);
    }
    if (rank == 0) {
      save(control, directory, step);
    }
    control.done(step < steps, step, {{"steps", step}});
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    const bool lost = error.kind() == ErrorKind::peer_lost && fault.rank >= 0;
    control.failed(error, lost ? std::optional(trireme::Rank(fault.rank)) : std::nullopt);
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    return 2;
  }
  const std::string resume = setting("TRIREME_RESUME", "");
  fmt::print("fake rank {}{}\n", argv[2], resume.empty() ? "" : " resumes " + resume);
  return run({argv[1]}, std::stoi(argv[2]));
}
