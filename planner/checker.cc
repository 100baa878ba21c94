#include "planner/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "planner/execution.h"
#include "planner/message_order.h"
#include "planner/standstill.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

Verdict illegal(std::string reason) {
  return {false, std::move(reason), std::nullopt, ""};
}

Verdict illegal(std::string reason, size_t rank, size_t position) {
  return {false, std::move(reason), OpPosition{static_cast<int>(rank), position}, ""};
}

std::string where(size_t rank, size_t position) {
  return fmt::format("rank {}, op {}", rank, position);
}

// Each rule answers with a verdict when it is broken, with nothing when it holds.
using Complaint = std::optional<Verdict>;

Complaint check_places(const Schedule& schedule) {
  if (schedule.ranks.empty()) return illegal("the schedule has no ranks");
  if (schedule.stages.empty()) return illegal("the schedule has no stages");
  if (schedule.micro_batches < 1) {
    return illegal(fmt::format("the schedule has {} micro-batches", schedule.micro_batches));
  }
  std::set<std::pair<int, int>> taken;
  for (size_t stage = 0; stage < schedule.stages.size(); ++stage) {
    const StagePlace& place = schedule.stages[stage];
    if (place.rank < 0 || place.rank >= schedule.pipeline()) {
      return illegal(fmt::format("stage {} lies on rank {}, but there are {} ranks", stage,
                                 place.rank, schedule.pipeline()));
    }
    if (place.chunk < 0 || place.chunk >= static_cast<int>(schedule.stages.size()) ||
        !taken.insert({place.rank, place.chunk}).second) {
      return illegal(fmt::format("stage {} is chunk {} of rank {}, which is taken or impossible",
                                 stage, place.chunk, place.rank));
    }
  }
  return std::nullopt;
}

Complaint check_op(const Schedule& schedule, size_t rank, size_t position) {
  const std::vector<Op>& program = schedule.ranks[rank];
  const Op& op = program[position];
  if (op.stage < 0 || static_cast<size_t>(op.stage) >= schedule.stages.size()) {
    return illegal(fmt::format("{}: stage {} does not exist; there are {}", where(rank, position),
                               op.stage, schedule.stages.size()),
                   rank, position);
  }
  if (op.micro_batch < 0 || op.micro_batch >= schedule.micro_batches) {
    return illegal(fmt::format("{}: micro-batch {} does not exist; there are {}",
                               where(rank, position), op.micro_batch, schedule.micro_batches),
                   rank, position);
  }
  const int home = schedule.stages[static_cast<size_t>(op.stage)].rank;
  if (home != static_cast<int>(rank)) {
    return illegal(fmt::format("{}: {} belongs on rank {}, where stage {} lies",
                               where(rank, position), to_string(op), home, op.stage),
                   rank, position);
  }
  if (op.overlaps_next && (position + 1 == program.size() || program[position + 1].overlaps_next)) {
    return illegal(fmt::format("{}: {} overlaps the next op, but no single op follows to pair with",
                               where(rank, position), to_string(op)),
                   rank, position);
  }
  return std::nullopt;
}

Complaint check_ops(const Schedule& schedule) {
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      if (Complaint complaint = check_op(schedule, rank, i)) return complaint;
    }
  }
  return std::nullopt;
}

// Bits of what was seen of one stage and micro-batch.
constexpr uint8_t kSeenF = 1, kSeenB = 2, kSeenI = 4, kSeenW = 8;

uint8_t seen_bit(OpKind kind) {
  switch (kind) {
    case OpKind::forward:
      return kSeenF;
    case OpKind::backward:
      return kSeenB;
    case OpKind::backward_input:
      return kSeenI;
    case OpKind::backward_weight:
      return kSeenW;
  }
  return 0;
}

const char* name_of(OpKind kind) {
  switch (kind) {
    case OpKind::forward:
      return "forward";
    case OpKind::backward:
      return "backward";
    case OpKind::backward_input:
      return "input-gradient";
    case OpKind::backward_weight:
      break;
  }
  return "weight-gradient";
}

// A weight gradient takes what the input gradient of its own stage leaves, so on one rank.
Complaint check_weight_after_input(const std::vector<Op>& program, size_t rank, size_t i,
                                   uint8_t seen) {
  const Op& op = program[i];
  if (op.kind != OpKind::backward_weight) return std::nullopt;
  const Op input{OpKind::backward_input, false, op.stage, op.micro_batch};
  const bool in_pair = i > 0 && program[i - 1].overlaps_next && program[i - 1].stage == op.stage &&
                       program[i - 1].micro_batch == op.micro_batch;
  if (in_pair) {
    return illegal(fmt::format("{}: {} overlaps {}, whose output it takes", where(rank, i),
                               to_string(op), to_string(input)),
                   rank, i);
  }
  if ((seen & kSeenI) != 0) return std::nullopt;
  return illegal(fmt::format("{}: {} stands before {}, whose output it takes", where(rank, i),
                             to_string(op), to_string(input)),
                 rank, i);
}

Verdict first_missing(const Schedule& schedule) {
  const std::vector<Op> missing = missing_ops(schedule, 1);
  TRIREME_CHECK(!missing.empty());
  const Op& op = missing.front();
  return illegal(fmt::format("stage {} never does the {} of micro-batch {}", op.stage,
                             name_of(op.kind), op.micro_batch));
}

// What follows when no op is there twice: each count tells that its ops are complete.
bool is_complete(const std::array<size_t, 4>& counts, size_t slots) {
  const auto [forward, backward, input, weight] = counts;
  if (forward != slots) return false;
  return backward + input + weight == 0 || (backward + input == slots && weight == input);
}

// A complaint when bits of `seen` exclude this op.
Complaint check_once(const std::vector<Op>& program, size_t rank, size_t i, uint8_t seen) {
  const Op& op = program[i];
  const uint8_t bit = seen_bit(op.kind);
  const uint8_t excluded = bit == kSeenB   ? kSeenB | kSeenI | kSeenW
                           : bit == kSeenF ? kSeenF
                                           : bit | kSeenB;
  if ((seen & excluded) == 0) return std::nullopt;
  return illegal(fmt::format("{}: {} does a second time what stage {} already did for "
                             "micro-batch {}",
                             where(rank, i), to_string(op), op.stage, op.micro_batch),
                 rank, i);
}

Complaint check_counts(const Schedule& schedule) {
  const size_t micro_batches = static_cast<size_t>(schedule.micro_batches);
  size_t ops = 0;
  for (const std::vector<Op>& program : schedule.ranks) ops += program.size();
  // Before anything of that size is allocated: a schedule may claim any number of micro-batches.
  if (ops / micro_batches < schedule.stages.size()) return first_missing(schedule);
  std::vector<uint8_t> seen(schedule.stages.size() * micro_batches, 0);
  std::array<size_t, 4> counts{};
  Complaint early;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const std::vector<Op>& program = schedule.ranks[rank];
    for (size_t i = 0; i < program.size(); ++i) {
      const Op& op = program[i];
      uint8_t& bits =
          seen[static_cast<size_t>(op.stage) * micro_batches + static_cast<size_t>(op.micro_batch)];
      if (Complaint complaint = check_once(program, rank, i, bits)) return complaint;
      if (!early) early = check_weight_after_input(program, rank, i, bits);
      bits |= seen_bit(op.kind);
      ++counts[static_cast<size_t>(op.kind)];
    }
  }
  if (!is_complete(counts, seen.size())) return first_missing(schedule);
  return early;
}

Complaint check_memory(const Schedule& schedule, const std::optional<std::vector<int>>& limits) {
  if (!limits) return std::nullopt;
  if (limits->size() != 1 && limits->size() != schedule.ranks.size()) {
    return illegal(fmt::format("found {} memory limits, expected one, or one for each of {} ranks",
                               limits->size(), schedule.ranks.size()));
  }
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const int limit = limits->size() == 1 ? limits->front() : (*limits)[rank];
    int held = 0;
    int freed = 0;  // by the first op of a pair, but not before the pair ends
    const std::vector<Op>& program = schedule.ranks[rank];
    for (size_t i = 0; i < program.size(); ++i) {
      if (program[i].kind == OpKind::forward && ++held > limit) {
        return illegal(fmt::format("{}: {} is one chunk activation too many: rank {} then holds "
                                   "{}, its limit is {}",
                                   where(rank, i), to_string(program[i]), rank, held, limit),
                       rank, i);
      }
      if (program[i].kind == OpKind::backward || program[i].kind == OpKind::backward_weight) {
        ++freed;
      }
      if (program[i].overlaps_next) continue;
      held -= freed;
      freed = 0;
    }
  }
  return std::nullopt;
}

bool provides(const Op& op, const Op& needed) {
  if (op.stage != needed.stage || op.micro_batch != needed.micro_batch) return false;
  if (needed.kind == OpKind::forward) return op.kind == OpKind::forward;
  return op.kind == OpKind::backward || op.kind == OpKind::backward_input;
}

// Where a rank of a stopped execution stands, and an op that it waits for there.
StuckRank stuck_rank(const Schedule& schedule, const Execution& execution, size_t rank) {
  const std::vector<Op>& program = schedule.ranks[rank];
  StuckRank stuck;
  stuck.at = execution.next()[rank];
  if (stuck.at == program.size()) return stuck;
  Op waiting = program[stuck.at];
  std::vector<Op> missing = execution.missing_inputs(waiting);
  if (missing.empty()) {
    waiting = program[stuck.at + 1];  // the pair's other op
    missing = execution.missing_inputs(waiting);
  }
  // An input of the rank's own making is the plainer mistake.
  const auto own = [&](const Op& op) {
    return schedule.stages[static_cast<size_t>(op.stage)].rank == static_cast<int>(rank);
  };
  const auto first_own = std::find_if(missing.begin(), missing.end(), own);
  const Op needed = first_own != missing.end() ? *first_own : missing.front();
  stuck.stuck = true;
  stuck.for_rank = static_cast<size_t>(schedule.stages[static_cast<size_t>(needed.stage)].rank);
  const std::vector<Op>& other = schedule.ranks[stuck.for_rank];
  const auto maker =
      std::find_if(other.begin(), other.end(), [&](const Op& op) { return provides(op, needed); });
  stuck.for_step = static_cast<size_t>(maker - other.begin());
  stuck.waiting = to_string(waiting);
  stuck.needed = to_string(*maker);
  return stuck;
}

Verdict explain_stop(const Schedule& schedule, const Execution& execution) {
  std::vector<StuckRank> ranks;
  std::vector<size_t> steps;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    ranks.push_back(stuck_rank(schedule, execution, rank));
    steps.push_back(schedule.ranks[rank].size());
  }
  const std::vector<size_t> cycle = wait_cycle(ranks);
  const size_t culprit = culprit_of(ranks, cycle);
  const StuckRank& stuck = ranks[culprit];
  Verdict verdict;
  if (cycle.size() == 1) {
    const bool in_pair =
        stuck.for_step <= stuck.at + 1 && schedule.ranks[culprit][stuck.at].overlaps_next;
    verdict =
        illegal(fmt::format("{}: {} {} {}, whose output it takes", where(culprit, stuck.at),
                            stuck.waiting, in_pair ? "overlaps" : "stands before", stuck.needed),
                culprit, stuck.at);
  } else {
    verdict = illegal(
        fmt::format("{} ranks wait for each other: {}", cycle.size(), describe_cycle(ranks, cycle)),
        culprit, stuck.at);
  }
  const auto name = [&](size_t rank, size_t step) { return to_string(schedule.ranks[rank][step]); };
  verdict.grid = draw_standstill(ranks, steps, name, culprit);
  return verdict;
}

// A walk that only asks whether, not when.
struct Untimed {
  double run(size_t, size_t, std::span<const Op>, double) const { return 0; }
  double deliver(size_t, size_t, double) const { return 0; }
};

}  // namespace

Verdict check_schedule(const Schedule& schedule, const CheckOptions& options) {
  for (const auto rule : {check_places, check_ops, check_counts}) {
    if (Complaint complaint = rule(schedule)) return *complaint;
  }
  if (Complaint complaint = check_memory(schedule, options.memory_limit)) return *complaint;
  Execution execution(schedule);
  execution.run(Untimed());
  if (!execution.complete()) return explain_stop(schedule, execution);
  if (Complaint complaint = check_messages(schedule, options)) return *complaint;
  return {true, "", std::nullopt, ""};
}

}  // namespace trireme
