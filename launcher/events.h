#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace trireme {

// Appends one JSON object per line to a file of the run directory (events.jsonl): every state
// change with its time, and with rank, node and cause where it has them. Each line is one write to
// a file opened for appending, so that the controller and, once it is gone, the agents may write
// the same file.
//
// A full disk must not stop a run: what cannot be written is counted, not thrown.
class EventLog {
 public:
  // Throws Error(failed) when the file cannot be opened.
  explicit EventLog(const std::string& path);
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  // Adds "time": seconds since 1970, and "date", the same for people.
  void record(nlohmann::json event);
  int lost_lines() const { return lost_lines_; }

 private:
  int file_;
  int lost_lines_ = 0;
};

// Text that may stand in JSON: control bytes and what is not ASCII become '?', tabs stay.
std::string printable(std::string text);

}  // namespace trireme
