#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
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

// A message of one rank to another: it occupies their directed link for `transfer` (its bytes over
// the bandwidth), after the messages sent before it, and is there `hop` later (the latency).
struct LinkCost {
  double hop = 0;
  double transfer = 0;
  bool operator==(const LinkCost&) const = default;
};

// What a stage holds for one micro-batch, in any unit of memory: `activation` from its F on, of
// which an I leaves `kept_after_input` until the W.
struct StageMemory {
  double activation = 1;
  double kept_after_input = 1;
  bool operator==(const StageMemory&) const = default;
};

struct Costs {
  std::vector<StageCost> stages = {StageCost{}};  // by global stage; a single one stands for all
  double hop = 0;       // of every link between two ranks; within a rank an output costs nothing
  double transfer = 0;  // likewise
  double overlap = 0;   // 0 .. 1: the share of an overlapped pair's shorter op that the pair hides
  std::vector<StageMemory> memory = {};  // by global stage or one for all; empty: 1 and 1
  // Where set, what each directed link costs, instead of `hop` and `transfer`.
  std::function<LinkCost(int from_rank, int to_rank)> link = {};
  // Where set, what the op at this position of this rank's program takes, instead of `stages`:
  // times measured in a run.
  std::function<double(int rank, size_t position)> op_time = {};

  const StageCost& of_stage(int stage) const {
    return stages.size() == 1 ? stages.front() : stages[static_cast<size_t>(stage)];
  }
  LinkCost of_link(int from_rank, int to_rank) const;  // nothing within a rank
};

// An overlapped pair takes at least (1 - overlap / 2) of the sum of its ops. With every op that
// much shorter the two could run one after the other in its place, so what no schedule can beat at
// these costs without pairs, none can beat at the given ones with pairs.
Costs least_in_pairs(Costs costs);

struct OpTimes {
  double start = 0;
  double end = 0;
};

// Why a rank idles; the parts sum to its idle time. A wait is the time from the end of an op until
// the start of the next one.
struct IdleCauses {
  double fill = 0;  // before its first op
  // Of its waits, what passes while all inputs exist on the ranks that made them, but one is still
  // on its way: latency, transfer, and other messages on the link.
  double message = 0;
  // Of the rest of its waits, as much as its ops take less time than those of the busiest rank:
  // what no other order could save, since a step lasts as long as the busiest rank works.
  double imbalance = 0;
  double dependency = 0;  // what is left of its waits: an input was not made yet
  double drain = 0;       // after its last op; all the time of a rank without ops

  double total() const { return fill + message + imbalance + dependency + drain; }
};

// From `time` on a rank holds `units`, until its next step.
struct MemoryStep {
  double time = 0;
  double units = 0;
  bool operator==(const MemoryStep&) const = default;
};

// When a step is over, and when its gradients are there.
struct Timing {
  double makespan = 0;                // the end of the last op of all
  std::vector<double> last_gradient;  // by stage: the end of its last B or W, 0 without one
};

// And when each of its ops runs.
struct Recording : Timing {
  std::vector<std::vector<OpTimes>> ops;  // by rank and position
};

// One step of a schedule under given costs, all ranks starting at 0.
struct Simulation : Recording {
  double span = 0;           // the longest window of any single rank, first start to last end
  std::vector<double> idle;  // by rank: makespan less its ops
  std::vector<IdleCauses> idle_by_cause;  // by rank
  double bubble_fraction = 0;             // sum of idle / (ranks * makespan)
  std::vector<int> peak_activations;  // by rank: most stage inputs held at once, each from its F
                                      // until its B (or W)
  // By rank, in the units of Costs::memory: what an op adds is held from its start, what it frees
  // until its end. Without a backward nothing is freed, as in `peak_activations`.
  std::vector<double> peak_memory;
  std::vector<std::vector<MemoryStep>> memory;  // by rank: every change, ascending in time
  std::vector<std::vector<double>>
      tail_slack;        // by rank and chunk: makespan - last gradient, 0 without one
  int64_t messages = 0;  // outputs that cross from one rank to another
};

// Times a schedule: every rank runs its program in order, an op starts when the rank is free and
// its inputs have arrived. Sends never block the sender; messages on one directed link queue in the
// order in which its sender's program makes them, which is the order in time (see LinkCost). An
// overlapped pair starts when the inputs of both are there, takes the sum of both less what
// Costs::overlap hides, and ends as one. Time and memory are linear in the number of ops.
// The schedule must be legal (checker.h), costs not negative, `stages` and `memory` one or as many
// as the schedule has; anything else is a bug of the caller (TRIREME_CHECK where it is noticed).
Simulation simulate(const Schedule& schedule, const Costs& costs);

// The same figures, several times as fast: for choosing among many schedules, and for drawings.
// `timing_within` gives up, and has no answer, as soon as what a rank has done and has to do ends
// after `most`.
Timing timing_of(const Schedule& schedule, const Costs& costs);
std::optional<Timing> timing_within(const Schedule& schedule, const Costs& costs, double most);
double makespan_of(const Schedule& schedule, const Costs& costs);
Recording recording_of(const Schedule& schedule, const Costs& costs);

// When each rank first holds the most, from the start of the step: the start of the op that makes
// it so. Looks no further than it has to, which is mostly until the pipeline has filled.
std::vector<double> peak_times(const Schedule& schedule, const Costs& costs);

// One of several pipelines that start together, and how many replicas of it there are.
struct PipelineRun {
  int replicas = 1;
  double makespan = 0;
  double bubble_fraction = 0;
};

// The share of the time until all are done in which their ranks idle.
double bubble_of_all(const std::vector<PipelineRun>& pipelines);

}  // namespace trireme
