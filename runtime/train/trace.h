#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// What a rank did when, for the Chrome trace and for the measured bubble. Times are seconds of the
// machine's monotonic clock. Kept in memory and written at the end of each step. Not thread-safe.
class Trace {
 public:
  enum class Kind { op, pair, send, receive, reduce, optimizer, checkpoint };

  static double now();
  // Processor time of this process so far, in seconds.
  static double processor_time();

  // Writes to `path`; the file is a JSON array of Chrome trace events, readable at any time up to
  // the last whole step. `process` and `thread` are how the viewer groups and names the rank.
  Trace(std::string path, int rank, const std::string& rank_name);

  // A step is an event too, with the processor time that all threads of this rank spent in it.
  void begin_step(int step);
  // `version`: how many updates the op's weights had seen, where that differs from op to op.
  // `cpu`: seconds of processor time that all threads of this rank spent meanwhile.
  void add_op(const Op& op, std::optional<int> version, double begin, double end, double cpu);
  void add(Kind kind, const std::string& name, double begin, double end);
  // The most bytes of device memory this rank has held so far, as a counter.
  void add_peak(size_t bytes);
  void end_step();

  // Of the current step: seconds in ops, and from the first op's begin to the last op's end.
  double busy() const { return busy_; }
  double window() const { return last_end_ - first_begin_; }

 private:
  void append(const std::string& name, const char* category, double begin, double end,
              const std::string& arguments);

  std::string path_;
  int rank_;
  int step_ = 0;
  double step_begin_ = 0, step_cpu_ = 0;
  bool any_ = false;
  double busy_ = 0;
  double first_begin_ = 0;
  double last_end_ = 0;
  std::string pending_;
};

}  // namespace trireme
