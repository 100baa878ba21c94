#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "planner/schedules/generators.h"

// V-Half and V-Min (Qi et al. 2024, Pipeline Parallelism with Controllable Memory, sections 3 and
// 4.1; the order is the one of the authors' program, zbv_greedy). Time is cut into slots of one op.
// A micro-batch takes the same slots on every rank as the one before it, six later, which settles
// what a rank holds. Ops then advance into slots that stay free while the pipeline fills and
// drains, as long as no rank holds more than before. Measured times play no part.

namespace trireme {
namespace {

// What a rank does for a micro-batch, in this order. Weight gradients count as one kind.
enum Kind { kForward0, kForward1, kInput1, kInput0, kWeight };
constexpr int kFree = -1;
constexpr int kPeriod = 6;

using FirstSlots = std::array<int, 4>;            // of the first micro-batch, by kind
using RankSlots = std::vector<std::vector<int>>;  // by kind and index, ascending

size_t at(int i) {
  return static_cast<size_t>(i);
}

struct Placed {
  int slot = 0;
  int rank = 0;
  int kind = 0;
  int index = 0;  // the micro-batch; for weight gradients their position among all of the rank's
};

int end_of(const std::vector<RankSlots>& ranks) {
  int end = 0;
  for (const RankSlots& slots : ranks) {
    for (const std::vector<int>& of_kind : slots) end = std::max(end, of_kind.back() + 1);
  }
  return end;
}

// Calls visit(op) for what stands in the slots [first, end) now, by slot, then rank; visit may move
// what it is given.
template <class Visit>
void for_each_in_order(const std::vector<RankSlots>& ranks, int first, int end, Visit&& visit) {
  constexpr int8_t kNothing = kFree;
  std::vector<int8_t> kinds(at(end - first) * ranks.size(), kNothing);  // by slot and rank
  std::vector<std::array<int, 5>> next(ranks.size());                   // index, by kind
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (size_t kind = 0; kind < ranks[rank].size(); ++kind) {
      const std::vector<int>& slots = ranks[rank][kind];
      auto slot = std::lower_bound(slots.begin(), slots.end(), first);
      next[rank][kind] = static_cast<int>(slot - slots.begin());
      for (; slot != slots.end() && *slot < end; ++slot) {
        kinds[at(*slot - first) * ranks.size() + rank] = static_cast<int8_t>(kind);
      }
    }
  }
  auto kind = kinds.begin();
  for (int slot = first; slot < end; ++slot) {
    for (size_t rank = 0; rank < ranks.size(); ++rank, ++kind) {
      if (*kind == kNothing) continue;
      visit(Placed{slot, static_cast<int>(rank), *kind, next[rank][at(*kind)]++});
    }
  }
}

// The kind in every slot of a rank.
std::vector<int> kinds_by_slot(const RankSlots& slots) {
  int last = 0;
  for (const std::vector<int>& of_kind : slots) last = std::max(last, of_kind.back());
  std::vector<int> kinds(at(last) + 1, kFree);
  for (size_t kind = 0; kind < slots.size(); ++kind) {
    for (const int slot : slots[kind]) kinds[at(slot)] = static_cast<int>(kind);
  }
  return kinds;
}

// Every free slot takes a weight gradient if one is to do; the rest follow the last op.
void place_weights(RankSlots& slots) {
  const std::vector<int> kinds = kinds_by_slot(slots);
  std::vector<int> weights;
  int waiting = 0;
  for (size_t slot = 0; slot < kinds.size() || waiting > 0; ++slot) {
    const int kind = slot < kinds.size() ? kinds[slot] : kFree;
    if (kind == kInput0 || kind == kInput1) ++waiting;
    if (kind != kFree || waiting == 0) continue;
    weights.push_back(static_cast<int>(slot));
    --waiting;
  }
  slots.push_back(std::move(weights));
}

// What stands in each slot of one rank and what the rank holds after it. Where weight gradients are
// not placed yet, free slots count as taken by them.
class RankGrid {
 public:
  explicit RankGrid(const RankSlots& slots)
      : weights_placed_(slots.size() > kWeight), kinds_(kinds_by_slot(slots)) {
    held_.reserve(kinds_.size());
    for (const int kind : kinds_) held_.push_back(after(held_before(held_.size()), kind));
  }

  int peak() const {
    int peak = 0;
    for (const Held& held : held_) peak = std::max(peak, held.activations);
    return peak;
  }

  // Moves the op in slot `from` to the earlier slot `to`, unless something stands there or the rank
  // would come to hold more than `most`.
  bool advance(int from, int to, int most) {
    if (kinds_[at(to)] != kFree) return false;
    std::swap(kinds_[at(from)], kinds_[at(to)]);
    std::vector<Held> changed;
    Held held = held_before(at(to));
    for (size_t slot = at(to); slot < kinds_.size(); ++slot) {
      held = after(held, kinds_[slot]);
      if (held.activations > most) {
        std::swap(kinds_[at(from)], kinds_[at(to)]);
        return false;
      }
      if (slot >= at(from) && held == held_[slot]) break;
      changed.push_back(held);
    }
    std::copy(changed.begin(), changed.end(), held_.begin() + to);
    return true;
  }

  // The slot of the rank's input gradient number `index` of `count`, whatever its chunk. Sought
  // from the nearer end: ops advance while the pipeline fills or drains.
  int slot_of_input_gradient(int index, int count) const {
    const bool from_front = index < count / 2;
    int slot = from_front ? 0 : static_cast<int>(kinds_.size()) - 1;
    for (int left = from_front ? index : count - 1 - index;; slot += from_front ? 1 : -1) {
      if (kinds_[at(slot)] != kInput0 && kinds_[at(slot)] != kInput1) continue;
      if (left-- == 0) return slot;
    }
  }

 private:
  struct Held {
    int activations = 0;
    int waiting = 0;  // weight gradients to do, where they are not placed
    bool operator==(const Held&) const = default;
  };

  Held held_before(size_t slot) const { return slot == 0 ? Held{} : held_[slot - 1]; }

  Held after(Held held, int kind) const {
    if (kind == kForward0 || kind == kForward1) ++held.activations;
    if (kind == kWeight) --held.activations;
    if (weights_placed_) return held;
    if (kind == kInput0 || kind == kInput1) ++held.waiting;
    if (kind == kFree && held.waiting > 0) return {held.activations - 1, held.waiting - 1};
    return held;
  }

  bool weights_placed_;
  std::vector<int> kinds_;
  std::vector<Held> held_;
};

// The first slot after what an op takes from the ranks beside it and from its own.
int earliest_slot(const std::vector<RankSlots>& ranks, const Placed& op) {
  int last = -1;
  const auto follow = [&](int rank, int kind, int index) {
    if (rank < 0 || rank == static_cast<int>(ranks.size()) || index < 0) return;
    last = std::max(last, ranks[at(rank)][at(kind)][at(index)]);
  };
  if (op.kind == kForward0 || op.kind == kInput1) follow(op.rank - 1, op.kind, op.index);
  if (op.kind == kForward1 || op.kind == kInput0) follow(op.rank + 1, op.kind, op.index);
  if (op.kind != kForward0 && op.kind != kWeight) follow(op.rank, op.kind - 1, op.index);
  follow(op.rank, op.kind, op.index - 1);
  return last + 1;
}

// The last forward of chunk 0 that comes first after slot `filled` of rank 0, if any does.
std::optional<Placed> first_last_forward(const std::vector<RankSlots>& ranks, int filled) {
  std::optional<Placed> first;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const int slot = ranks[rank][kForward0].back();
    const bool after = slot > filled || (slot == filled && rank > 0);
    if (after && (!first || slot < first->slot)) {
      first = Placed{slot, static_cast<int>(rank), kForward0, 0};
    }
  }
  return first;
}

// Ops advance into free slots while the pipeline drains (after the first rank's last forward of
// chunk 0) and, once weight gradients are placed, while it fills (until the first rank's first
// input gradient of chunk 0).
void reorder(std::vector<RankSlots>& ranks, int micro_batches) {
  const bool weights_placed = ranks.front().size() > kWeight;
  std::vector<RankGrid> grids(ranks.begin(), ranks.end());
  int most = 0;
  for (const RankGrid& grid : grids) most = std::max(most, grid.peak());
  const auto advance = [&](const Placed& op) {
    RankGrid& grid = grids[at(op.rank)];
    int to = earliest_slot(ranks, op);
    if (op.kind == kWeight) {
      to = std::max(to, grid.slot_of_input_gradient(op.index, 2 * micro_batches) + 1);
    }
    while (to < op.slot && !grid.advance(op.slot, to, most)) ++to;
    ranks[at(op.rank)][at(op.kind)][at(op.index)] = std::min(to, op.slot);
  };
  const int filled = ranks.front()[kInput0].front();
  if (weights_placed) {
    for_each_in_order(ranks, 0, filled, advance);
  }
  const std::optional<Placed> drains = first_last_forward(ranks, filled);
  if (!drains) return;
  for_each_in_order(ranks, drains->slot, end_of(ranks), [&](const Placed& op) {
    if (op.slot > drains->slot || op.rank > drains->rank) advance(op);
  });
}

// The same order with every op as early as its inputs and its rank allow.
void squeeze(std::vector<RankSlots>& ranks) {
  std::vector<int> next_free(ranks.size(), 0);
  for_each_in_order(ranks, 0, end_of(ranks), [&](const Placed& op) {
    const int slot = std::max(earliest_slot(ranks, op), next_free[at(op.rank)]);
    ranks[at(op.rank)][at(op.kind)][at(op.index)] = slot;
    next_free[at(op.rank)] = slot + 1;
  });
}

void place_all_weights(std::vector<RankSlots>& ranks) {
  for (RankSlots& slots : ranks) place_weights(slots);
}

void remove_weights(std::vector<RankSlots>& ranks) {
  for (RankSlots& slots : ranks) slots.resize(kWeight);
}

// Of the weight gradients that are to do, those of chunk 1 go first.
std::vector<Op> program_of(const RankSlots& slots, int rank, int pipeline) {
  const std::array<int, 2> stages = {rank, 2 * pipeline - 1 - rank};
  std::array<int, 5> done{};
  std::array<int, 2> weights{};
  std::vector<Op> program;
  program.reserve(6 * slots.front().size());
  const auto add = [&](OpKind kind, size_t chunk, int micro_batch) {
    program.push_back({kind, false, stages[chunk], micro_batch});
  };
  for (const int kind : kinds_by_slot(slots)) {
    if (kind == kFree) continue;
    const int index = done[at(kind)]++;
    if (kind == kWeight) {
      const size_t chunk = weights[1] < done[kInput1] ? 1 : 0;
      add(OpKind::backward_weight, chunk, weights[chunk]++);
    } else {
      add(kind == kForward0 || kind == kForward1 ? OpKind::forward : OpKind::backward_input,
          kind == kForward1 || kind == kInput1 ? 1 : 0, index);
    }
  }
  return program;
}

Schedule from_first_slots(const char* name, const std::vector<FirstSlots>& first,
                          int micro_batches) {
  const int pipeline = static_cast<int>(first.size());
  std::vector<RankSlots> ranks;
  for (const FirstSlots& of_rank : first) {
    RankSlots& slots = ranks.emplace_back();
    for (const int slot : of_rank) {
      std::vector<int>& of_kind = slots.emplace_back();
      of_kind.reserve(at(micro_batches));
      for (int i = 0; i < micro_batches; ++i) of_kind.push_back(slot + kPeriod * i);
    }
  }
  place_all_weights(ranks);
  reorder(ranks, micro_batches);
  squeeze(ranks);
  remove_weights(ranks);
  reorder(ranks, micro_batches);
  place_all_weights(ranks);
  squeeze(ranks);
  remove_weights(ranks);
  place_all_weights(ranks);
  Schedule schedule{name, micro_batches, v_placement(pipeline, 2), {}};
  for (int rank = 0; rank < pipeline; ++rank) {
    schedule.ranks.push_back(program_of(ranks[at(rank)], rank, pipeline));
  }
  return schedule;
}

}  // namespace

// Half of what 1F1B holds, about p/2m of bubble.
Schedule v_half_schedule(int pipeline, int micro_batches) {
  const int p = pipeline, shift = p % 2 == 0 ? 3 : 0;
  std::vector<FirstSlots> first;
  first.reserve(at(p));
  for (int r = 0; r < p; ++r) {
    first.push_back({2 * r, 3 * p - 2 - r, 3 * p - 1 + shift + 2 * r, 6 * p - 2 + shift - r});
  }
  return from_first_slots("v-half", first, micro_batches);
}

// A third of what 1F1B holds, about 2p/3m of bubble.
Schedule v_min_schedule(int pipeline, int micro_batches) {
  const int p = pipeline, shift = p % 3 == 0 ? 2 : 0;
  std::vector<FirstSlots> first;
  first.reserve(at(p));
  for (int r = 0; r < p; ++r) {
    first.push_back({r, 2 * p - 1 - r, 2 * p + shift + r, 4 * p - 1 + shift - r});
  }
  return from_first_slots("v-min", first, micro_batches);
}

}  // namespace trireme
