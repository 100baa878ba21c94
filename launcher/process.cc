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

// Between fork and exec only calls that are safe there (signal-safety(7)): no allocation, no locks.
[[noreturn]] void become(char** arguments, char** environment, DescriptorPairs& descriptors,
                         pid_t parent, bool dies_with_parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int ignored : {SIGINT, SIGTERM, SIGPIPE}) {
    signal(ignored, SIG_DFL);
  }
  setsid();
  if (dies_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {  // it was gone before the line above
      _exit(kNotRun);
    }
  }
  int last = 2;
  for (auto& [target, source] :
       descriptors) {  // out of the way first: a source may be another's target
    source = fcntl(source, F_DUPFD, kFirstFreeDescriptor);
  }
  for (const auto& [target, source] : descriptors) {
    if (dup2(source, target) < 0) {
      _exit(kNotRun);
    }
    last = std::max(last, target);
  }
  close_range(static_cast<unsigned>(last) + 1, UINT_MAX, 0);
  execve(arguments[0], arguments, environment);
  _exit(kNotRun);
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
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    throw system_error("cannot start a process");
  }
  if (child == 0) {
    become(argument_pointers.data(), environment_pointers.data(), descriptors, parent,
           spec.dies_with_parent);
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
  if (!status_ && waitpid(pid_, &status, WNOHANG) == pid_) {
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
