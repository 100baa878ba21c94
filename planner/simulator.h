#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// What one op of a stage takes, in any unit of time; a full backward takes input + weight.
struct StageCost {
  double forward = 1;
  double input = 1;
  double weight = 1;

  double backward() const { return input + weight; }
  double of(OpKind kind) const;
  bool operator==(const StageCost&) const = default;
};

struct Costs {
  std::vector<StageCost> stages = {StageCost{}};  // by global stage; a single one stands for all
  double hop =
      0;  // from the end of an op until its output is on another rank; nothing within a rank
  // Where set, what the op at this position of this rank's program takes, instead of `stages`:
  // times measured in a run.
  std::function<double(int rank, size_t position)> op_time = {};

  const StageCost& of_stage(int stage) const {
    return stages.size() == 1 ? stages.front() : stages[static_cast<size_t>(stage)];
  }
};

struct OpTimes {
  double start = 0;
  double end = 0;
};

// One step of a schedule under given costs, all ranks starting at 0.
struct Simulation {
  std::vector<std::vector<OpTimes>> ops;  // by rank and position
  double makespan = 0;                    // the end of the last op of all
  double span = 0;             // the longest window of any single rank, first start to last end
  std::vector<double> idle;    // by rank: makespan less its ops
  double bubble_fraction = 0;  // sum of idle / (ranks * makespan)
  std::vector<int> peak_activations;  // by rank: most stage inputs held at once, each from its F
                                      // until its B (or W)
  std::vector<std::vector<double>>
      tail_slack;        // by rank and chunk: makespan - end of the chunk's last B or W
  int64_t messages = 0;  // outputs that cross from one rank to another
};

// Times a schedule: every rank runs its program in order, an op starts when the rank is free and
// its inputs have arrived, sends are asynchronous and links never queue. An overlapped pair starts
// when both are ready and takes the sum of both. Time and memory are linear in the number of ops.
// The schedule must be legal (checker.h), costs not negative and `stages` one or as many as the
// schedule has; anything else is a bug of the caller (TRIREME_CHECK).
Simulation simulate(const Schedule& schedule, const Costs& costs);

// The makespan alone, about twice as fast: for choosing among many schedules.
double makespan_of(const Schedule& schedule, const Costs& costs);

// No schedule with full backwards of these stages on these places ends earlier: some rank needs the
// fill before its first op (the forwards of the stages before its first), all its own work, and the
// drain after its last backward. `op_time` is not looked at.
double makespan_bound(const std::vector<StagePlace>& stages, int pipeline, int micro_batches,
                      const Costs& costs);

}  // namespace trireme
