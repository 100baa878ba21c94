#include "planner/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "planner/execution.h"

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

// What a stage still lacks for one micro-batch, or nullptr.
const char* lacking(uint8_t seen, bool forward_only) {
  if ((seen & kSeenF) == 0) return "forward";
  if (forward_only || (seen & kSeenB) != 0) return nullptr;
  if ((seen & (kSeenI | kSeenW)) == 0) return "backward";
  if ((seen & kSeenI) == 0) return "input-gradient";
  return (seen & kSeenW) == 0 ? "weight-gradient" : nullptr;
}

Complaint check_counts(const Schedule& schedule) {
  const size_t micro_batches = static_cast<size_t>(schedule.micro_batches);
  size_t ops = 0;
  for (const std::vector<Op>& program : schedule.ranks) ops += program.size();
  // Before anything of that size is allocated: a schedule may claim any number of micro-batches.
  if (ops / micro_batches < schedule.stages.size()) {
    return illegal(fmt::format("{} ops cannot cover {} stages x {} micro-batches", ops,
                               schedule.stages.size(), micro_batches));
  }
  std::vector<uint8_t> seen(schedule.stages.size() * micro_batches, 0);
  bool forward_only = true;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Op& op = schedule.ranks[rank][i];
      uint8_t& bits =
          seen[static_cast<size_t>(op.stage) * micro_batches + static_cast<size_t>(op.micro_batch)];
      const uint8_t bit = seen_bit(op.kind);
      const uint8_t excluded = bit == kSeenB   ? kSeenB | kSeenI | kSeenW
                               : bit == kSeenF ? kSeenF
                                               : bit | kSeenB;
      if ((bits & excluded) != 0) {
        return illegal(fmt::format("{}: {} does a second time what stage {} already did for "
                                   "micro-batch {}",
                                   where(rank, i), to_string(op), op.stage, op.micro_batch),
                       rank, i);
      }
      bits |= bit;
      forward_only = forward_only && op.kind == OpKind::forward;
    }
  }
  for (size_t slot = 0; slot < seen.size(); ++slot) {
    if (const char* missing = lacking(seen[slot], forward_only)) {
      return illegal(fmt::format("stage {} never does the {} of micro-batch {}",
                                 slot / micro_batches, missing, slot % micro_batches));
    }
  }
  return std::nullopt;
}

// How a stopped execution waits: for every rank the position it is stuck at, and the rank and
// position of an op that it waits for. Ranks that have finished wait for nothing.
struct Wait {
  bool stuck = false;
  Op waiting;  // the op, of an overlapped pair the one, whose input is missing
  Op needed;
  size_t rank = 0;  // where the needed op stands
  size_t position = 0;
};

bool provides(const Op& op, const Op& needed) {
  if (op.stage != needed.stage || op.micro_batch != needed.micro_batch) return false;
  if (needed.kind == OpKind::forward) return op.kind == OpKind::forward;
  return op.kind == OpKind::backward || op.kind == OpKind::backward_input;
}

Wait wait_of(const Schedule& schedule, const Execution& execution, size_t rank) {
  const std::vector<Op>& program = schedule.ranks[rank];
  const size_t head = execution.next()[rank];
  Wait wait;
  if (head == program.size()) return wait;
  wait.stuck = true;
  wait.waiting = program[head];
  std::vector<Op> missing = execution.missing_inputs(wait.waiting);
  if (missing.empty()) {
    wait.waiting = program[head + 1];
    missing = execution.missing_inputs(wait.waiting);
  }
  // An input of the rank's own making is the plainer mistake.
  const auto own = [&](const Op& op) {
    return schedule.stages[static_cast<size_t>(op.stage)].rank == static_cast<int>(rank);
  };
  const auto first_own = std::find_if(missing.begin(), missing.end(), own);
  wait.needed = first_own != missing.end() ? *first_own : missing.front();
  wait.rank = static_cast<size_t>(schedule.stages[static_cast<size_t>(wait.needed.stage)].rank);
  const std::vector<Op>& other = schedule.ranks[wait.rank];
  wait.position =
      static_cast<size_t>(std::find_if(other.begin(), other.end(),
                                       [&](const Op& op) { return provides(op, wait.needed); }) -
                          other.begin());
  wait.needed = other[wait.position];
  return wait;
}

// The ranks of one cycle of waits, in the order in which they wait for each other. Every stuck rank
// waits for a stuck rank, so following waits from any of them ends in a cycle.
std::vector<size_t> wait_cycle(const std::vector<Wait>& waits) {
  size_t at = 0;
  while (!waits[at].stuck) ++at;
  for (size_t i = 0; i < waits.size(); ++i) at = waits[at].rank;
  std::vector<size_t> cycle;
  do {
    cycle.push_back(at);
    at = waits[at].rank;
  } while (at != cycle.front());
  return cycle;
}

// Around where it stopped: what ran, the op that each rank waits at in brackets, the culprit in
// exclamation marks.
std::string draw_grid(const Schedule& schedule, const Execution& execution,
                      const std::vector<Wait>& waits, size_t culprit) {
  constexpr size_t kBefore = 4, kAfter = 4, kMostRanks = 32;
  std::string grid;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    if (rank == kMostRanks) {
      grid += fmt::format("... and {} more ranks\n", schedule.ranks.size() - rank);
      break;
    }
    const std::vector<Op>& program = schedule.ranks[rank];
    const size_t head = execution.next()[rank];
    const size_t from = head > kBefore ? head - kBefore : 0;
    grid += fmt::format("rank {:>3} {}", rank, from > 0 ? "..." : "   ");
    for (size_t i = from; i < std::min(program.size(), head + 1 + kAfter); ++i) {
      std::string cell = to_string(program[i]);
      if (i == head) {
        cell = rank == culprit ? fmt::format("!{}!", cell) : fmt::format("[{}]", cell);
      }
      grid += fmt::format(" {:>7}", cell);
    }
    if (waits[rank].stuck) {
      grid += fmt::format("   waits for {} of rank {}", to_string(waits[rank].needed),
                          waits[rank].rank);
    }
    grid += "\n";
  }
  return grid;
}

// Of the ranks in a cycle, the one that the least move of an op would free: the op that its
// predecessor in the cycle waits for stands closest behind the op it is stuck at; the lowest rank
// on a tie.
size_t culprit_of(const Execution& execution, const std::vector<Wait>& waits,
                  const std::vector<size_t>& cycle) {
  size_t culprit = cycle.front(), least = SIZE_MAX;
  for (const size_t rank : cycle) {
    const Wait& wait = waits[rank];
    const size_t move = wait.position - execution.next()[wait.rank];
    if (move < least || (move == least && wait.rank < culprit)) {
      least = move;
      culprit = wait.rank;
    }
  }
  return culprit;
}

Verdict explain_stop(const Schedule& schedule, const Execution& execution) {
  std::vector<Wait> waits;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    waits.push_back(wait_of(schedule, execution, rank));
  }
  const std::vector<size_t> cycle = wait_cycle(waits);
  const size_t culprit = culprit_of(execution, waits, cycle);
  const size_t position = execution.next()[culprit];
  Verdict verdict;
  if (cycle.size() == 1) {
    verdict = illegal(
        fmt::format("{}: {} stands before {}, whose output it takes", where(culprit, position),
                    to_string(waits[culprit].waiting), to_string(waits[culprit].needed)),
        culprit, position);
  } else {
    std::string chain;
    for (const size_t rank : cycle) {
      chain += fmt::format("{}rank {} at {} waits for {} of rank {}", chain.empty() ? "" : ", ",
                           rank, to_string(waits[rank].waiting), to_string(waits[rank].needed),
                           waits[rank].rank);
    }
    verdict = illegal(fmt::format("{} ranks wait for each other: {}", cycle.size(), chain), culprit,
                      position);
  }
  verdict.grid = draw_grid(schedule, execution, waits, culprit);
  return verdict;
}

}  // namespace

Verdict check_schedule(const Schedule& schedule) {
  for (const auto rule : {check_places, check_ops, check_counts}) {
    if (Complaint complaint = rule(schedule)) return *complaint;
  }
  Execution execution(schedule);
  execution.run([](size_t, size_t) {});
  if (!execution.complete()) return explain_stop(schedule, execution);
  return {true, "", std::nullopt, ""};
}

}  // namespace trireme
