#include "planner/execution.h"

#include <numeric>

namespace trireme {
namespace {

// B counts as I and W at once.
constexpr uint8_t kForward = 1, kInput = 2, kWeight = 4;

uint8_t bits_of(OpKind kind) {
  switch (kind) {
    case OpKind::forward:
      return kForward;
    case OpKind::backward:
      return kInput | kWeight;
    case OpKind::backward_input:
      return kInput;
    case OpKind::backward_weight:
      return kWeight;
  }
  return 0;
}

}  // namespace

Execution::Execution(const Schedule& schedule)
    : schedule_(schedule),
      stages_(static_cast<int>(schedule.stages.size())),
      done_(schedule.stages.size() * static_cast<size_t>(schedule.micro_batches), 0),
      next_(schedule.ranks.size(), 0),
      runnable_(schedule.ranks.size()),
      blocked_(schedule.ranks.size(), false) {
  std::iota(runnable_.rbegin(), runnable_.rend(), size_t{0});
}

bool Execution::complete() const {
  for (size_t rank = 0; rank < next_.size(); ++rank) {
    if (next_[rank] < schedule_.ranks[rank].size()) return false;
  }
  return true;
}

bool Execution::done(OpKind kind, int stage, int micro_batch) const {
  const uint8_t bits = bits_of(kind);
  return (done_[slot(stage, micro_batch)] & bits) == bits;
}

bool Execution::inputs_done(const Op& op) const {
  const int stage = op.stage, i = op.micro_batch;
  switch (op.kind) {
    case OpKind::forward:
      return stage == 0 || (done_[slot(stage - 1, i)] & kForward) != 0;
    case OpKind::backward:
    case OpKind::backward_input:
      return (done_[slot(stage, i)] & kForward) != 0 &&
             (stage + 1 == stages_ || (done_[slot(stage + 1, i)] & kInput) != 0);
    case OpKind::backward_weight:
      return (done_[slot(stage, i)] & kInput) != 0;
  }
  return false;
}

std::vector<Op> Execution::missing_inputs(const Op& op) const {
  std::vector<Op> missing;
  const auto need = [&](OpKind kind, int stage) {
    const uint8_t bits = kind == OpKind::forward ? kForward : kInput;
    if ((done_[slot(stage, op.micro_batch)] & bits) == 0) {
      missing.push_back({kind, false, stage, op.micro_batch});
    }
  };
  if (op.kind == OpKind::forward) {
    if (op.stage > 0) need(OpKind::forward, op.stage - 1);
  } else if (op.kind == OpKind::backward_weight) {
    need(OpKind::backward_input, op.stage);
  } else {
    need(OpKind::forward, op.stage);
    if (op.stage + 1 < stages_) need(OpKind::backward_input, op.stage + 1);
  }
  return missing;
}

bool Execution::ready(size_t rank) const {
  const std::vector<Op>& program = schedule_.ranks[rank];
  const Op& op = program[next_[rank]];
  return inputs_done(op) && (!op.overlaps_next || inputs_done(program[next_[rank] + 1]));
}

void Execution::finish(size_t rank) {
  const std::vector<Op>& program = schedule_.ranks[rank];
  const bool pair = program[next_[rank]].overlaps_next;
  mark(program[next_[rank]++]);
  if (pair) mark(program[next_[rank]++]);
}

void Execution::mark(const Op& op) {
  done_[slot(op.stage, op.micro_batch)] |= bits_of(op.kind);
  if (op.kind == OpKind::forward && op.stage + 1 < stages_) wake(op.stage + 1);
  if ((bits_of(op.kind) & kInput) != 0 && op.stage > 0) wake(op.stage - 1);
}

void Execution::wake(int stage) {
  const auto rank = static_cast<size_t>(schedule_.stages[static_cast<size_t>(stage)].rank);
  if (!blocked_[rank]) return;
  blocked_[rank] = false;
  runnable_.push_back(rank);
}

}  // namespace trireme
