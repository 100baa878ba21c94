#pragma once

#include <stdexcept>
#include <string>

namespace trireme {

// A kind exists only because some caller acts on it; everything else is text of the message.
enum class ErrorKind {
  bad_input,   // the user's file, flag or value: exit 2
  no_layout,   // a valid job that fits the cluster in no layout: exit 3
  failed,      // the world failed (process, disk, socket): exit 1
  peer_lost,   // another rank or node went away: exit 1, and never named as the first cause
  unavailable  // asked for something this build or version does not have: exit 2
};

// The one exception type of trireme: a user's mistake or a failed world. A bug is TRIREME_CHECK
// (check.h); an ordinary "no" is a return value.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// The process exit code that a command ends with for an uncaught Error of this kind.
int exit_code(ErrorKind kind);

}  // namespace trireme
