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

  // Writes to `path`, or nowhere where it is empty; the file is a JSON array of Chrome trace
  // events, readable at any time up to the last whole step. It has the first steps up to half of so
  // many bytes, and no more of the latest. Steps that cannot be written are missing, which stderr
  // hears of once.
  Trace(std::string path, int rank, const std::string& rank_name, int64_t most_bytes = 8 << 20);

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
  std::string write_pending();

  std::string path_;
  int64_t most_bytes_;
  int rank_;
  std::string header_;      // the event that names the rank
  int64_t length_ = 0;      // of the file
  int64_t first_part_ = 0;  // of that, the steps that stay, once these are enough
  bool lost_any_ = false;
  int step_ = 0;
  double step_begin_ = 0, step_cpu_ = 0;
  bool any_ = false;
  double busy_ = 0;
  double first_begin_ = 0;
  double last_end_ = 0;
  std::string pending_;
};

}  // namespace trireme
