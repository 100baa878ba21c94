#include "planner/execution.h"

#include <numeric>

namespace trireme {

Execution::Execution(const Schedule& schedule)
    : schedule_(schedule),
      last_stage_(static_cast<int>(schedule.stages.size()) - 1),
      row_(row_of(schedule)),
      slots_(schedule.stages.size() * row_),
      outputs_(outputs_of(schedule)),
      there_(outputs_, kNotYet),
      next_(schedule.ranks.size(), 0),
      runnable_(schedule.ranks.size()),
      awaited_(schedule.ranks.size(), outputs()) {
  there_.back() = 0;
  std::iota(runnable_.rbegin(), runnable_.rend(), size_t{0});
}

bool Execution::complete() const {
  for (size_t rank = 0; rank < next_.size(); ++rank) {
    if (next_[rank] < schedule_.ranks[rank].size()) return false;
  }
  return true;
}

bool Execution::forward_done(int stage, int micro_batch) const {
  const Op taker = stage < last_stage_ ? Op{OpKind::forward, false, stage + 1, micro_batch}
                                       : Op{OpKind::backward, false, stage, micro_batch};
  return there_[input_of(taker)] >= 0;
}

std::vector<Op> Execution::missing_inputs(const Op& op) const {
  std::vector<Op> missing;
  if (there_[input_of(op)] >= 0) return missing;
  if (op.kind == OpKind::forward) {
    missing.push_back({OpKind::forward, false, op.stage - 1, op.micro_batch});
    return missing;
  }
  if (!forward_done(op.stage, op.micro_batch)) {
    missing.push_back({OpKind::forward, false, op.stage, op.micro_batch});
  }
  if (op.stage < last_stage_) {
    missing.push_back({OpKind::backward_input, false, op.stage + 1, op.micro_batch});
  }
  return missing;
}

}  // namespace trireme
