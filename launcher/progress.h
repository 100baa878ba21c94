#pragma once

#include <cstdio>
#include <optional>

#include "launcher/controller.h"
#include "launcher/step_book.h"

namespace trireme {

// Shows a run to whoever watches `out`: on a terminal one line that is rewritten, elsewhere a line
// at the first and last step and at most every two seconds in between. Adds up the totals on the
// way. Nobody who watches and does not read keeps the run from going on.
class Progress : public RunObserver {
 public:
  Progress(std::FILE* out, bool terminal, int total_steps);
  void say(const std::string& text) override;
  void step(const nlohmann::json& metrics) override;
  // Leaves the rewritten line as it stands and goes on below it.
  void close();
  const RunTotals& totals() const { return totals_; }

 private:
  void show(const std::string& line, bool last);

  std::FILE* out_;
  bool terminal_;
  int total_steps_;
  RunTotals totals_;
  bool line_open_ = false;
  double last_shown_ = -1e9;
  std::optional<double> first_time_;  // when the first step of this run was done
  int first_step_ = 0;
};

// "step 12/200  loss 4.1234  12.3k tokens/s  bubble 12.5 %  1m 20s left"; "rehearsal: step ...",
// without a loss, of a rehearsal. `seconds_left` below 0: not known yet.
std::string progress_line(const nlohmann::json& metrics, int total_steps, double seconds_left);

// "45s", "1m 20s", "2h 05m"
std::string short_duration(double seconds);

}  // namespace trireme
