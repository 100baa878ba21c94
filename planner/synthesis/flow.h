#pragma once

#include <cstdint>
#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"

namespace trireme {

// A training step as a search sees it: every stage has one forward, one input-gradient and one
// weight-gradient *type* of op, and each type runs once per micro-batch.
//
// Micro-batches are alike, so nothing is lost by letting every type take them in order: if the
// i-th op of a type waits for the i-th of another in any feasible schedule, then sorting the start
// times of each type by size keeps every such wait true (order statistics are monotone), every
// rank's busy times and what it holds. A rank's program is therefore just a
// sequence of types, each m times.
//
// The same problem read from its end to its start is again one: waits turn around, memory
// is taken where it was released. `reversed` makes it, so that whatever is known about starts is
// known about ends too.
struct Flow {
  struct Input {
    int type = 0;
    double lag = 0;  // from the end of that op until its output is here
  };
  struct Type {
    int rank = 0;
    double time = 0;
    double holds = 0;  // what it takes of its rank's memory, from its start on; or releases, < 0
    std::vector<Input> inputs;
  };

  int micro_batches = 1;
  std::vector<Type> types;                // kind * stages + stage; kinds F, I, W
  std::vector<int> order;                 // types, inputs before users
  std::vector<std::vector<int>> of_rank;  // types by rank
  std::vector<std::vector<int>> users;    // types that take this type's output
  std::vector<double> limit;              // by rank: most held at once
  std::vector<StagePlace> stages;

  int ranks() const { return static_cast<int>(of_rank.size()); }
  size_t type_count() const { return types.size(); }
  size_t op_count() const { return types.size() * static_cast<size_t>(micro_batches); }
  // Where the op of this type and micro-batch stands in a table of all ops.
  size_t op(int type, int micro_batch) const {
    return static_cast<size_t>(type) * static_cast<size_t>(micro_batches) +
           static_cast<size_t>(micro_batch);
  }

  Flow reversed() const;
};

// By rank, the types in the order in which it runs them.
using Programs = std::vector<std::vector<int16_t>>;

// What a stage holds for one micro-batch: an activation, where the costs say nothing.
StageMemory memory_of(const Costs& costs, size_t stage);

// A message takes its transfer and its hop; that others may be before it on the link is left out,
// and so is the overlap of pairs. `limit`: by rank, in the unit of Costs::memory; what never binds
// is cut to all that there is to hold.
Flow make_flow(const std::vector<StagePlace>& stages, int pipeline, int micro_batches,
               const Costs& costs, const std::vector<double>& limit);

// The programs of any schedule on the flow's stages, full backwards split, pairs in sequence.
Programs programs_of(const Flow& flow, const Schedule& schedule);

// Back to a schedule. Backwards stay split, since the stage before waits for the input gradient
// alone; only stage 0, for which nobody waits, does both in one where they stand together.
Schedule schedule_of(const Flow& flow, const Programs& programs);

// The same programs, read from the end, for the reversed flow.
Programs reversed(Programs programs);

// When every op starts, each rank running its program in order. Reusable; not shared by threads.
class FlowClock {
 public:
  explicit FlowClock(const Flow& flow);

  // The makespan, or infinity where the programs wait for each other in a circle or it exceeds
  // `most` (the starts are then incomplete). Whether a memory limit is kept is not looked at.
  double run(const Programs& programs, double most);

  const std::vector<double>& starts() const { return starts_; }  // by Flow::op
  double end(int type, int micro_batch) const {
    return starts_[flow_.op(type, micro_batch)] + flow_.types[static_cast<size_t>(type)].time;
  }

 private:
  const Flow& flow_;
  std::vector<double> starts_;
  std::vector<int> done_;     // by type
  std::vector<size_t> next_;  // by rank
  std::vector<double> free_;  // by rank
};

// Whether a rank's program never holds more than its limit.
bool within_limit(const Flow& flow, const std::vector<int16_t>& program, double limit);

}  // namespace trireme
