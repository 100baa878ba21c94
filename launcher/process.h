#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launcher/exit_status.h"

namespace trireme {

// An open file descriptor that is closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct ProcessSpec {
  std::vector<std::string> arguments;              // [0]: the program's path
  std::map<std::string, std::string> environment;  // added to this process's own
  // Descriptor in the child -> descriptor here. Nothing else is inherited but 0, 1 and 2 where not
  // listed.
  std::map<int, int> descriptors;
  bool dies_with_parent = false;  // SIGKILL as soon as the thread that started it is gone
};

// A child in a session of its own, so that a terminal's Ctrl-C and hang-up do not reach it. Not
// thread-safe; start it from a thread that lives as long as the child should. Destroying it neither
// ends nor awaits the child.
class Process {
 public:
  // Returns once the program runs. Throws Error(failed) when it cannot be run or no process be
  // made.
  static Process start(const ProcessSpec& spec);

  pid_t pid() const { return pid_; }
  // Becomes readable when the child has ended.
  int ended_descriptor() const { return ended_.get(); }
  // How it ended, or nothing while it runs. Never blocks; stays the same once it has ended.
  std::optional<ExitStatus> poll();
  // To the child's whole process group. Nothing happens when it has ended.
  void signal(int number);

 private:
  Process(pid_t pid, Descriptor ended) : pid_(pid), ended_(std::move(ended)) {}

  pid_t pid_;
  Descriptor ended_;  // a pidfd
  std::optional<ExitStatus> status_;
  std::vector<int> sent_;
};

// Where the running program lies.
std::string program_path();

}  // namespace trireme
