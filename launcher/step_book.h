#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace trireme {

// Puts together what the ranks of a run say about each step: one rank sends the step's metrics,
// every rank how long it was busy. Gives back the objects of metrics.jsonl in the order of the
// steps.
//
// The measured bubble of a step is 1 - sum(busy seconds) / (ranks * window), where the window is
// the longest that any rank had from its first op to its last: the share of rank seconds in which
// nothing was computed. It is left out when a rank's report is missing.
class StepBook {
 public:
  StepBook(int ranks, double predicted_bubble)
      : ranks_(ranks), predicted_bubble_(predicted_bubble) {}

  // Each returns the steps that are now complete. `metrics` has at least an integer "step".
  std::vector<nlohmann::json> metrics(const nlohmann::json& metrics);
  std::vector<nlohmann::json> busy(int step, double seconds, double window);
  // What is left at the end of the run, complete or not.
  std::vector<nlohmann::json> flush();

 private:
  struct Page {
    nlohmann::json metrics;  // null: not there yet
    int reports = 0;
    double busy_seconds = 0;
    double window = 0;
  };
  std::vector<nlohmann::json> complete(bool all);
  nlohmann::json line(Page page) const;

  int ranks_;
  double predicted_bubble_;
  std::map<int, Page> pages_;  // open steps
};

// A line of metrics.jsonl, without the newline: the loss with 9 significant digits, which tell
// every fp32 value apart.
std::string metrics_line(const nlohmann::json& step);

// What the closing summary says about all steps.
class RunTotals {
 public:
  void add(const nlohmann::json& step);

  int steps() const { return steps_; }
  double first_loss() const { return first_loss_; }
  double last_loss() const { return last_loss_; }
  int last_step() const { return last_step_; }
  // Medians: one step that the machine disturbed does not count.
  double step_seconds() const { return median(step_seconds_); }
  double tokens_per_second() const { return median(tokens_per_second_); }
  double bubble_fraction() const { return median(bubble_); }  // -1: never measured
  // Of a rehearsal: the most that the host was too late in one step; -1: not a rehearsal.
  double slipped_seconds() const { return slipped_; }

 private:
  static double median(std::vector<double> values);

  int steps_ = 0;
  int last_step_ = -1;
  double first_loss_ = 0;
  double last_loss_ = 0;
  double slipped_ = -1;
  std::vector<double> step_seconds_, tokens_per_second_, bubble_;
};

}  // namespace trireme
