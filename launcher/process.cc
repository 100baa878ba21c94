#include "launcher/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <tuple>

#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr int kNotRun = 127;              // as a shell reports a program that it could not run
constexpr int kFirstFreeDescriptor = 64;  // above every number that a child is given

Error system_error(const std::string& what) {
  return {ErrorKind::failed, fmt::format("{}: {}", what, std::strerror(errno))};
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    result.push_back(text.data());
  }
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!added.contains(text.substr(0, text.find('=')))) {
      merged.push_back(text);
    }
  }
  for (const auto& [name, value] : added) {
    merged.push_back(fmt::format("{}={}", name, value));
  }
  return merged;
}

using DescriptorPairs = std::vector<std::pair<int, int>>;  // number in the child, number here

// Through a pipe that exec closes, the parent learns why there was none.
[[noreturn]] void not_run(int why) {
  const int reason = errno;
  std::ignore = write(why, &reason, sizeof reason);
  _exit(kNotRun);
}

// Between fork and exec only calls that are safe there (signal-safety(7)): no allocation, no locks.
[[noreturn]] void become(char** arguments, char** environment, DescriptorPairs& descriptors,
                         int why, pid_t parent, bool dies_with_parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int ignored : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    signal(ignored, SIG_DFL);
  }
  setsid();
  if (dies_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {  // it was gone before the line above
      _exit(kNotRun);
    }
  }
  const auto out_of_the_way = [why](int descriptor) {
    const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, kFirstFreeDescriptor);
    if (moved < 0) {
      not_run(why);
    }
    return moved;
  };
  const int why_moved = out_of_the_way(why);
  for (auto& [target, source] : descriptors) {  // a source may be another's target
    source = out_of_the_way(source);
  }
  int last = 2;
  for (const auto& [target, source] : descriptors) {
    if (dup2(source, target) < 0) {
      not_run(why_moved);
    }
    last = std::max(last, target);
  }
  close_range(static_cast<unsigned>(last) + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC);
  execve(arguments[0], arguments, environment);
  not_run(why_moved);
}

// Of a child that could not run its program, or 0.
int reason_not_run(int why) {
  int reason = 0;
  ssize_t n = 0;
  do {
    n = read(why, &reason, sizeof reason);
  } while (n < 0 && errno == EINTR);
  return n == sizeof reason ? reason : 0;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

Process Process::start(const ProcessSpec& spec) {
  std::vector<std::string> arguments = spec.arguments;
  if (access(arguments.front().c_str(), X_OK) != 0) {
    throw system_error(arguments.front());
  }
  std::vector<std::string> environment = merged_environment(spec.environment);
  std::vector<char*> argument_pointers = pointers(arguments);
  std::vector<char*> environment_pointers = pointers(environment);
  DescriptorPairs descriptors(spec.descriptors.begin(), spec.descriptors.end());
  std::array<int, 2> why{};
  if (pipe2(why.data(), O_CLOEXEC) != 0) {
    throw system_error("cannot start a process");
  }
  const Descriptor reading(why[0]);
  Descriptor writing(why[1]);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    throw system_error("cannot start a process");
  }
  if (child == 0) {
    become(argument_pointers.data(), environment_pointers.data(), descriptors, writing.get(),
           parent, spec.dies_with_parent);
  }
  writing = Descriptor();
  if (const int reason = reason_not_run(reading.get()); reason != 0) {
    waitpid(child, nullptr, 0);
    errno = reason;
    throw system_error(arguments.front());
  }
  // As a system call: glibc 2.36 declares its wrapper without extern "C".
  Descriptor ended(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  if (ended.get() < 0) {
    const Error error = system_error("cannot watch a process");
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    throw error;
  }
  return {child, std::move(ended)};
}

std::optional<ExitStatus> Process::poll() {
  int status = 0;
  const pid_t ended = status_ ? 0 : waitpid(pid_, &status, WNOHANG);
  if (ended < 0 && errno == ECHILD) {
    status_ = ExitStatus{.code = kNotRun};  // somebody else has seen how
  } else if (ended == pid_) {
    status_ = exit_status(status);
    status_->by_us = std::find(sent_.begin(), sent_.end(), status_->signal) != sent_.end();
  }
  return status_;
}

void Process::signal(int number) {
  if (!poll()) {  // not reaped, so the number still belongs to the child
    sent_.push_back(number);
    if (kill(-pid_, number) != 0) {
      kill(pid_, number);  // it has not come to setsid yet
    }
  }
}

std::string program_path() {
  std::array<char, PATH_MAX> path{};
  const ssize_t size = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (size <= 0) {
    throw system_error("/proc/self/exe");
  }
  return {path.data(), static_cast<size_t>(size)};
}

}  // namespace trireme
