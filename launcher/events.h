#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "launcher/line_file.h"

namespace trireme {

// Appends one JSON object per line to a file of the run directory (events.jsonl): every state
// change with its time, and with rank, node and cause where it has them. The controller and, once
// it is gone, the agents write the same file.
class EventLog {
 public:
  // Throws Error(failed) when the file cannot be opened.
  EventLog(const std::string& path, std::function<void(const std::string& complaint)> complain)
      : file_(path, std::move(complain)) {}

  // Adds "time": seconds since 1970, and "date", the same for people.
  void record(nlohmann::json event);
  const LineFile& file() const { return file_; }

 private:
  LineFile file_;
};

// Text that may stand in JSON: control bytes and what is not ASCII become '?', tabs stay.
std::string printable(std::string text);

}  // namespace trireme
