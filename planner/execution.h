#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// The op at this position of a program, or the two of the overlapped pair that begins there.
inline std::span<const Op> ops_at(const std::vector<Op>& program, size_t position) {
  return {&program[position], program[position].overlaps_next ? size_t{2} : size_t{1}};
}

// Walks a schedule as its ranks would run it: each rank in program order, each op once the ops
// whose output it takes have run. Sends never block. Used by the checker (does everything run?) and
// the simulator (when?).
//
// One number is kept for each output that a neighbouring stage takes: when it is there, or that it
// is not yet. That number alone says whether an op can run. F(s,i) takes the output of F(s-1,i). B
// or I(s,i) takes the one of B or I(s+1,i), on the last stage that of F(s,i); so when it is there,
// the stage's own F has run as well. W takes nothing that crosses stages.
//
// The schedule must be well formed: every op on its stage's rank, stage and micro-batch in range,
// at most one F and one B-or-I per stage and micro-batch, every W behind its I, and no op
// overlapping more than the next. It need not be free of deadlock. It must outlive the execution.
class Execution {
 public:
  explicit Execution(const Schedule& schedule);

  // Runs until every rank is done or blocked, or until clock.stopped() where the clock has that,
  // linear in the number of ops. For each op or overlapped pair of a rank's program asks
  //   double clock.run(size_t rank, size_t position, std::span<const Op> ops, double ready)
  // when it ends, given when its inputs are there; and for each output that a neighbouring stage
  // takes, in the order in which a rank's program makes them,
  //   double clock.deliver(size_t edge, size_t output, double end)
  // when it is there. Times are not negative. Edge 2s leads from stage s to s+1, edge 2s+1 to s-1;
  // `output` numbers all outputs (see input_of).
  template <class Clock>
  void run(Clock&& clock);

  bool complete() const;
  // The position that each rank has reached.
  const std::vector<size_t>& next() const { return next_; }

  // The ops whose output `op` takes and that have not run: at most two. I stands for B or I. A W is
  // taken to miss nothing.
  std::vector<Op> missing_inputs(const Op& op) const;

  // The number of the output that `op` takes; outputs() - 1 stands for none.
  size_t input_of(const Op& op) const {
    if (op.kind == OpKind::backward_weight || (op.kind == OpKind::forward && op.stage == 0)) {
      return outputs() - 1;
    }
    return (op.kind == OpKind::forward ? 0 : slots_) + slot(op);
  }
  size_t outputs() const { return outputs_; }
  static size_t outputs_of(const Schedule& schedule) {
    return 2 * schedule.stages.size() * row_of(schedule) + 1;
  }

 private:
  static constexpr double kNotYet = -1;

  // The micro-batches of a stage, in an odd number of cache lines: so what all stages do at about
  // the same time does not compete for the same few places in a cache.
  static size_t row_of(const Schedule& schedule) {
    constexpr size_t kLine = 64 / sizeof(double);
    const size_t lines = (static_cast<size_t>(schedule.micro_batches) + kLine - 1) / kLine;
    return (lines | 1) * kLine;
  }
  size_t slot(const Op& op) const {
    return static_cast<size_t>(op.stage) * row_ + static_cast<size_t>(op.micro_batch);
  }
  bool forward_done(int stage, int micro_batch) const;

  // What the op at `position` lacks, its pair's second op included, or outputs() - 1.
  size_t awaited_by(const std::vector<Op>& program, size_t position) const {
    const size_t input = input_of(program[position]);
    if (there_[input] < 0 || !program[position].overlaps_next) return input;
    return input_of(program[position + 1]);
  }

  template <class Clock>
  void finish(Clock& clock, const Op& op, double end);

  void arrive(size_t output, size_t rank, double time) {
    there_[output] = time;
    if (awaited_[rank] != output) return;
    awaited_[rank] = outputs();
    runnable_.push_back(rank);
  }

  const Schedule& schedule_;
  int last_stage_;
  size_t row_;
  size_t slots_;
  size_t outputs_;
  std::vector<double> there_;  // by output: forwards by stage and micro-batch, backwards, "none"
  std::vector<size_t> next_;
  std::vector<size_t> runnable_;
  std::vector<size_t> awaited_;  // by rank: the output that it is blocked on, else outputs()
};

template <class Clock>
void Execution::run(Clock&& clock) {
  while (!runnable_.empty()) {
    const size_t rank = runnable_.back();
    runnable_.pop_back();
    const std::vector<Op>& program = schedule_.ranks[rank];
    size_t at = next_[rank];
    while (at < program.size()) {
      if constexpr (requires { clock.stopped(); }) {
        if (clock.stopped()) return;
      }
      const std::span<const Op> ops = ops_at(program, at);
      double ready = there_[input_of(ops.front())];
      if (ops.size() > 1 && ready >= 0) {
        const double second = there_[input_of(ops.back())];
        ready = second < ready && second >= 0 ? ready : second;
      }
      if (ready < 0) {
        awaited_[rank] = awaited_by(program, at);
        break;
      }
      const double end = clock.run(rank, at, ops, ready);
      for (const Op& op : ops) finish(clock, op, end);
      at += ops.size();
    }
    next_[rank] = at;
  }
}

template <class Clock>
void Execution::finish(Clock& clock, const Op& op, double end) {
  if (op.kind == OpKind::backward_weight) return;
  const bool forward = op.kind == OpKind::forward;
  if (forward && op.stage == last_stage_) {
    there_[slots_ + slot(op)] = end;
    return;
  }
  if (!forward && op.stage == 0) return;
  const auto stage = static_cast<size_t>(op.stage);
  const size_t taker = forward ? stage + 1 : stage - 1;
  const size_t output = forward ? slot(op) + row_ : slots_ + slot(op) - row_;
  arrive(output, static_cast<size_t>(schedule_.stages[taker].rank),
         clock.deliver(2 * stage + (forward ? 0 : 1), output, end));
}

}  // namespace trireme
