#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

#include "planner/checker.h"

namespace trireme {
namespace {

bool exists_in(const Schedule& schedule, const Op& op) {
  return op.stage >= 0 && static_cast<size_t>(op.stage) < schedule.stages.size() &&
         op.micro_batch >= 0 && op.micro_batch < schedule.micro_batches;
}

constexpr uint8_t bit_of(OpKind kind) {
  return static_cast<uint8_t>(1U << static_cast<unsigned>(kind));
}

constexpr uint8_t kF = bit_of(OpKind::forward), kB = bit_of(OpKind::backward),
                  kI = bit_of(OpKind::backward_input), kW = bit_of(OpKind::backward_weight);

// The kinds that a stage still owes a micro-batch. `usual`: the kinds of any op of the schedule.
uint8_t owed(uint8_t seen, uint8_t usual) {
  uint8_t bits = (seen & kF) == 0 ? kF : 0;
  if ((usual & (kB | kI | kW)) == 0 || (seen & kB) != 0) return bits;
  const bool whole = (usual & kB) != 0 && (seen & (kI | kW)) == 0;
  return bits | (whole ? kB : (kI | kW) & ~seen);
}

}  // namespace

std::vector<Op> missing_ops(const Schedule& schedule, size_t most) {
  std::vector<Op> found;  // ascending by stage and micro-batch
  uint8_t usual = 0;
  for (const std::vector<Op>& program : schedule.ranks) {
    for (const Op& op : program) {
      if (!exists_in(schedule, op)) continue;
      found.push_back(op);
      usual |= bit_of(op.kind);
    }
  }
  std::sort(found.begin(), found.end(), [](const Op& a, const Op& b) {
    return std::tie(a.stage, a.micro_batch) < std::tie(b.stage, b.micro_batch);
  });
  std::vector<Op> missing;
  auto next = found.begin();
  for (int stage = 0; stage < static_cast<int>(schedule.stages.size()); ++stage) {
    for (int i = 0; i < schedule.micro_batches; ++i) {
      if (missing.size() >= most) return missing;
      uint8_t seen = 0;
      for (; next != found.end() && next->stage == stage && next->micro_batch == i; ++next) {
        seen |= bit_of(next->kind);
      }
      const uint8_t bits = owed(seen, usual);
      for (const OpKind kind :
           {OpKind::forward, OpKind::backward, OpKind::backward_input, OpKind::backward_weight}) {
        if ((bits & bit_of(kind)) != 0 && missing.size() < most) {
          missing.push_back({kind, false, stage, i});
        }
      }
    }
  }
  return missing;
}

}  // namespace trireme
