#pragma once

#include <cstdint>
#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// Walks a schedule as its ranks would run it: each rank in program order, each op once the ops
// whose output it takes have run. Sends never block. Used by the checker (does everything run?) and
// the simulator (when?).
//
// The schedule must be well formed: every op on its stage's rank, stage and micro-batch in range,
// at most one F and one B-or-I per stage and micro-batch, and no op overlapping more than the next.
// It need not be free of deadlock.
class Execution {
 public:
  explicit Execution(const Schedule& schedule);

  // Calls visit(rank, position) for each op or first op of an overlapped pair, inputs before users,
  // until every rank is done or blocked. Linear in the number of ops.
  template <class Visit>
  void run(Visit&& visit) {
    while (!runnable_.empty()) {
      const size_t rank = runnable_.back();
      runnable_.pop_back();
      while (next_[rank] < schedule_.ranks[rank].size() && ready(rank)) {
        visit(rank, next_[rank]);
        finish(rank);
      }
      blocked_[rank] = true;
    }
  }

  bool complete() const;
  // The position that each rank has reached.
  const std::vector<size_t>& next() const { return next_; }

  // Whether this op has run.
  bool done(OpKind kind, int stage, int micro_batch) const;
  // The ops whose output `op` takes and that have not run: at most two. I stands for B or I.
  std::vector<Op> missing_inputs(const Op& op) const;

 private:
  bool ready(size_t rank) const;
  bool inputs_done(const Op& op) const;
  void finish(size_t rank);
  void mark(const Op& op);
  void wake(int stage);
  size_t slot(int stage, int micro_batch) const {
    return static_cast<size_t>(stage) * static_cast<size_t>(schedule_.micro_batches) +
           static_cast<size_t>(micro_batch);
  }

  const Schedule& schedule_;
  int stages_;
  std::vector<uint8_t> done_;  // by stage and micro-batch: bits of F, I and W
  std::vector<size_t> next_;
  std::vector<size_t> runnable_;
  std::vector<bool> blocked_;
};

}  // namespace trireme
