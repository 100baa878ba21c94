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
constexpr uint8_t kFree = kWeight + 1;  // a slot without an op
constexpr int kPeriod = 6;

using FirstSlots = std::array<int, 4>;  // of the first micro-batch, by kind

size_t at(int i) {
  return static_cast<size_t>(i);
}

struct Placed {
  int slot = 0;
  int rank = 0;
  int kind = 0;
  int index = 0;  // the micro-batch; for weight gradients their position among all of the rank's
};

// What stands in each slot of every rank, and where each op stands.
class Grid {
 public:
  // Every micro-batch as the first, a period after the one before it.
  Grid(const std::vector<FirstSlots>& first, int micro_batches)
      : micro_batches_(micro_batches),
        kinds_(first.size()),
        slots_(first.size() * kWeight * at(micro_batches)),
        weight_slots_(first.size()) {
    for (int rank = 0; rank < ranks(); ++rank) {
      const int last = first[at(rank)].back() + kPeriod * (micro_batches - 1);
      kinds_[at(rank)].assign(at(last) + 1, kFree);
    }
    for (int i = 0; i < micro_batches; ++i) {
      for (int rank = 0; rank < ranks(); ++rank) {
        for (int kind = 0; kind < kWeight; ++kind) {
          place({first[at(rank)][at(kind)] + kPeriod * i, rank, kind, i});
        }
      }
    }
  }

  int ranks() const { return static_cast<int>(kinds_.size()); }
  int micro_batches() const { return micro_batches_; }
  bool weights_placed() const { return weights_placed_; }

  const std::vector<uint8_t>& kinds(int rank) const { return kinds_[at(rank)]; }
  int slot(int rank, int kind, int index) const {
    return kind == kWeight ? weight_slots_[at(rank)][at(index)] : slots_[number(rank, kind, index)];
  }

  void move(const Placed& op, int to) {
    kinds_[at(op.rank)][at(op.slot)] = kFree;
    place({to, op.rank, op.kind, op.index});
  }

  // Every free slot takes a weight gradient if one is to do; the rest follow the last op.
  void place_weights() {
    weights_placed_ = true;
    for (int rank = 0; rank < ranks(); ++rank) {
      std::vector<uint8_t>& kinds = kinds_[at(rank)];
      weight_slots_[at(rank)].resize(2 * at(micro_batches_));
      int placed = 0, waiting = 0;
      for (int slot = 0; at(slot) < kinds.size() || waiting > 0; ++slot) {
        if (at(slot) == kinds.size()) kinds.push_back(kFree);
        const int kind = kinds[at(slot)];
        if (kind == kInput0 || kind == kInput1) ++waiting;
        if (kind != kFree || waiting == 0) continue;
        place({slot, rank, kWeight, placed++});
        --waiting;
      }
    }
  }

  void remove_weights() {
    weights_placed_ = false;
    for (std::vector<uint8_t>& kinds : kinds_) {
      std::replace(kinds.begin(), kinds.end(), static_cast<uint8_t>(kWeight), kFree);
      while (kinds.back() == kFree) kinds.pop_back();
    }
  }

  // Calls visit(op) for what stands in the slots from `first` on, up to `end` where that is given,
  // by slot, then rank; visit may move what it is given to an earlier slot.
  template <class Visit>
  void for_each(int first, std::optional<int> end, Visit&& visit) const {
    std::vector<std::array<int, 5>> next;  // index, by rank and kind
    size_t last = 0;
    for (int rank = 0; rank < ranks(); ++rank) {
      next.push_back(counts_before(rank, first));
      last = std::max(last, kinds_[at(rank)].size());
    }
    if (end) last = std::min(last, at(*end));
    for (size_t slot = at(first); slot < last; ++slot) {
      for (int rank = 0; rank < ranks(); ++rank) {
        const std::vector<uint8_t>& kinds = kinds_[at(rank)];
        if (slot >= kinds.size() || kinds[slot] == kFree) continue;
        const int kind = kinds[slot];
        visit(Placed{static_cast<int>(slot), rank, kind, next[at(rank)][at(kind)]++});
      }
    }
  }

  // The same order with every op as early as its inputs and its rank allow. What an op takes from
  // its own rank stands before it.
  void squeeze() {
    std::vector<int> end(kinds_.size(), 0);  // of what is squeezed, by rank
    for_each(0, std::nullopt, [&](const Placed& op) {
      const int slot = std::max(after_neighbour(op), end[at(op.rank)]);
      move(op, slot);
      end[at(op.rank)] = slot + 1;
    });
    for (size_t rank = 0; rank < kinds_.size(); ++rank) kinds_[rank].resize(at(end[rank]));
  }

  // The first slot after what an op takes from the ranks beside it and from its own.
  int earliest_slot(const Placed& op) const {
    int earliest = after_neighbour(op);
    if (op.index > 0) earliest = std::max(earliest, slot(op.rank, op.kind, op.index - 1) + 1);
    if (op.kind == kForward0 || op.kind == kWeight) return earliest;
    return std::max(earliest, slot(op.rank, op.kind - 1, op.index) + 1);
  }

 private:
  // What the ranks do for a micro-batch stands together: they do it at about the same time.
  size_t number(int rank, int kind, int index) const {
    return (at(index) * kinds_.size() + at(rank)) * kWeight + at(kind);
  }

  void place(const Placed& op) {
    kinds_[at(op.rank)][at(op.slot)] = static_cast<uint8_t>(op.kind);
    if (op.kind == kWeight) {
      weight_slots_[at(op.rank)][at(op.index)] = op.slot;
    } else {
      slots_[number(op.rank, op.kind, op.index)] = op.slot;
    }
  }

  int after_neighbour(const Placed& op) const {
    if (op.kind == kWeight) return 0;
    const bool down = op.kind == kForward0 || op.kind == kInput1;
    const int before = op.rank + (down ? -1 : 1);
    return before >= 0 && before < ranks() ? slots_[number(before, op.kind, op.index)] + 1 : 0;
  }

  // Of each kind. Counted from the nearer end.
  std::array<int, 5> counts_before(int rank, int slot) const {
    const std::vector<uint8_t>& kinds = kinds_[at(rank)];
    const size_t end = std::min(at(slot), kinds.size());
    std::array<int, 5> counts{};
    const auto count = [&](size_t begin, size_t last, int sign) {
      for (size_t i = begin; i < last; ++i) {
        if (kinds[i] != kFree) counts[at(kinds[i])] += sign;
      }
    };
    if (end < kinds.size() / 2) {
      count(0, end, 1);
    } else {
      counts.fill(micro_batches_);
      counts[kWeight] = weights_placed_ ? 2 * micro_batches_ : 0;
      count(end, kinds.size(), -1);
    }
    return counts;
  }

  int micro_batches_;
  bool weights_placed_ = false;
  std::vector<std::vector<uint8_t>> kinds_;     // by rank and slot
  std::vector<int> slots_;                      // by number; of weight gradients:
  std::vector<std::vector<int>> weight_slots_;  // by rank and index
};

// What a rank holds after each slot. Where weight gradients are not placed yet, free slots count as
// taken by them.
class Held {
 public:
  Held(const Grid& grid, int rank) : grid_(grid), rank_(rank) {
    const std::vector<uint8_t>& kinds = grid.kinds(rank);
    after_.reserve(kinds.size());
    for (const int kind : kinds) after_.push_back(next(before(after_.size()), kind));
  }

  int peak() const {
    int peak = 0;
    for (const State& state : after_) peak = std::max(peak, state.activations);
    return peak;
  }

  // Takes the op in slot `from` to be in the first slot from `to` on that is free and where the
  // rank does not come to hold more than `most`, if there is an earlier one; returns where it is
  // now.
  size_t advance(size_t from, size_t to, int most) {
    to = grid_.weights_placed() ? advance_with_weights(from, to, most)
                                : advance_without_weights(from, to, most);
    while (counted_to_ > to) count_back();
    return to;
  }

  // The slot of the rank's input gradient number `index`, whatever its chunk. Those that are asked
  // for in turn are counted once.
  int slot_of_input_gradient(int index) {
    while (counted_ > index) count_back();
    while (counted_ <= index) counted_ += is_input_gradient(counted_to_++);
    return static_cast<int>(counted_to_) - 1;
  }

 private:
  struct State {
    int activations = 0;
    int waiting = 0;  // weight gradients to do, where they are not placed
    bool operator==(const State&) const = default;
  };

  // What is held changes between the two slots alone.
  size_t advance_with_weights(size_t from, size_t to, int most) {
    const std::vector<uint8_t>& kinds = grid_.kinds(rank_);
    const int more = change(kinds[from]);
    for (size_t slot = from; more > 0 && slot-- > to;) {
      if (after_[slot].activations == most) to = slot + 1;
    }
    while (to < from && kinds[to] != kFree) ++to;
    for (size_t slot = to; slot < from; ++slot) after_[slot].activations += more;
    return to;
  }

  // Weight gradients move, too.
  size_t advance_without_weights(size_t from, size_t to, int most) {
    const std::vector<uint8_t>& kinds = grid_.kinds(rank_);
    while (to < from) {
      if (kinds[to] != kFree) {
        ++to;
        continue;
      }
      const size_t full = fill_after(from, to, most);
      if (full == kinds.size()) {
        std::copy(changed_.begin(), changed_.end(),
                  after_.begin() + static_cast<std::ptrdiff_t>(to));
        break;
      }
      // In any slot before that one it has been added by then, and no more weight gradients are
      // done: those that wait for one find the same number of slots, but earlier ones.
      to = full + 1;
    }
    return std::min(to, from);
  }

  // What the rank holds with the op in slot `to`, into changed_. Returns the first slot after which
  // that is too much, or how many slots there are.
  size_t fill_after(size_t from, size_t to, int most) {
    const std::vector<uint8_t>& kinds = grid_.kinds(rank_);
    changed_.clear();
    State state = before(to);
    for (size_t slot = to; slot < kinds.size(); ++slot) {
      state = next(state, slot == to ? kinds[from] : slot == from ? kFree : kinds[slot]);
      if (state.activations > most) return slot;
      if (slot >= from && state == after_[slot]) break;
      changed_.push_back(state);
    }
    return kinds.size();
  }

  static int change(int kind) {
    if (kind == kForward0 || kind == kForward1) return 1;
    return kind == kWeight ? -1 : 0;
  }

  bool is_input_gradient(size_t slot) const {
    const int kind = grid_.kinds(rank_)[slot];
    return kind == kInput0 || kind == kInput1;
  }

  void count_back() { counted_ -= is_input_gradient(--counted_to_); }

  State before(size_t slot) const { return slot == 0 ? State{} : after_[slot - 1]; }

  State next(State state, int kind) const {
    state.activations += change(kind);
    if (grid_.weights_placed()) return state;
    if (kind == kInput0 || kind == kInput1) ++state.waiting;
    if (kind == kFree && state.waiting > 0) return {state.activations - 1, state.waiting - 1};
    return state;
  }

  const Grid& grid_;
  int rank_;
  std::vector<State> after_;
  std::vector<State> changed_;
  size_t counted_to_ = 0;  // slot, before which there are
  int counted_ = 0;        // input gradients
};

// The last forward of chunk 0 that comes first after slot `filled` of rank 0, if any does.
std::optional<Placed> first_last_forward(const Grid& grid, int filled) {
  std::optional<Placed> first;
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    const int slot = grid.slot(rank, kForward0, grid.micro_batches() - 1);
    const bool after = slot > filled || (slot == filled && rank > 0);
    if (after && (!first || slot < first->slot)) first = Placed{slot, rank, kForward0, 0};
  }
  return first;
}

// Ops advance into free slots while the pipeline drains (after the first rank's last forward of
// chunk 0) and, once weight gradients are placed, while it fills (until the first rank's first
// input gradient of chunk 0).
void reorder(Grid& grid) {
  std::vector<Held> held;
  int most = 0;
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    most = std::max(most, held.emplace_back(grid, rank).peak());
  }
  const auto advance = [&](const Placed& op) {
    int to = grid.earliest_slot(op);
    if (op.kind == kWeight) {
      to = std::max(to, held[at(op.rank)].slot_of_input_gradient(op.index) + 1);
    }
    if (to >= op.slot) return;
    to = static_cast<int>(held[at(op.rank)].advance(at(op.slot), at(to), most));
    if (to < op.slot) grid.move(op, to);
  };
  const int filled = grid.slot(0, kInput0, 0);
  if (grid.weights_placed()) grid.for_each(0, filled, advance);
  const std::optional<Placed> drains = first_last_forward(grid, filled);
  if (!drains) return;
  grid.for_each(drains->slot, std::nullopt, [&](const Placed& op) {
    if (op.slot > drains->slot || op.rank > drains->rank) advance(op);
  });
}

// Of the weight gradients that are to do, those of chunk 1 go first.
std::vector<Op> program_of(const Grid& grid, int rank) {
  const std::array<int, 2> stages = {rank, 2 * grid.ranks() - 1 - rank};
  std::array<int, 5> done{};
  std::array<int, 2> weights{};
  std::vector<Op> program;
  program.reserve(6 * at(grid.micro_batches()));
  const auto add = [&](OpKind kind, size_t chunk, int micro_batch) {
    program.push_back({kind, false, stages[chunk], micro_batch});
  };
  for (const int kind : grid.kinds(rank)) {
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

std::vector<std::vector<Op>> programs(const std::vector<FirstSlots>& first, int micro_batches) {
  Grid grid(first, micro_batches);
  grid.place_weights();
  reorder(grid);
  grid.squeeze();
  grid.remove_weights();
  reorder(grid);
  grid.place_weights();
  grid.squeeze();
  grid.remove_weights();
  grid.place_weights();
  std::vector<std::vector<Op>> programs;
  for (int rank = 0; rank < grid.ranks(); ++rank) programs.push_back(program_of(grid, rank));
  return programs;
}

// Where a program's middle lies: the longest stretch of which every op is done again, a period of
// ops later, for the next micro-batch. None where that is shorter than a period.
std::optional<size_t> middle(const std::vector<Op>& program) {
  const auto repeats = [&](size_t i) {
    Op next = program[i];
    ++next.micro_batch;
    return program[i + kPeriod] == next;
  };
  size_t longest = kPeriod - 1, place = 0, begin = 0;
  for (size_t i = 0; i + kPeriod < program.size(); ++i) {
    if (!repeats(i)) begin = i + 1;
    if (i + 1 - begin <= longest) continue;
    longest = i + 1 - begin;
    place = begin + longest / 2;
  }
  return place == 0 ? std::nullopt : std::optional(place);
}

// The program with its period in `place` repeated for so many more micro-batches.
std::vector<Op> repeated(const std::vector<Op>& program, size_t place, int more) {
  std::vector<Op> result;
  result.reserve(program.size() + kPeriod * at(more));
  result.assign(program.begin(), program.begin() + static_cast<std::ptrdiff_t>(place));
  const auto add = [&](size_t i, int later) {
    result.push_back(program[i]);
    result.back().micro_batch += later;
  };
  for (int later = 0; later < more; ++later) {
    for (size_t i = place; i < place + kPeriod; ++i) add(i, later);
  }
  for (size_t i = place; i < program.size(); ++i) add(i, more);
  return result;
}

// A pipeline has filled and not begun to drain after 1.5 times as many micro-batches as it has
// ranks, and a few: longer orders are those of 3p/2 + 6 micro-batches with more of the middle.
Schedule from_first_slots(const char* name, const std::vector<FirstSlots>& first, int micro_batches,
                          bool in_full) {
  const int ranks = static_cast<int>(first.size());
  const int enough = in_full ? micro_batches : std::min(micro_batches, 3 * ranks / 2 + 6);
  Schedule schedule{name, micro_batches, v_placement(ranks, 2), programs(first, enough)};
  if (enough == micro_batches) return schedule;
  for (std::vector<Op>& program : schedule.ranks) {
    const std::optional<size_t> place = middle(program);
    if (!place) {
      schedule.ranks = programs(first, micro_batches);
      break;
    }
    program = repeated(program, *place, micro_batches - enough);
  }
  return schedule;
}

}  // namespace

// Half of what 1F1B holds, about p/2m of bubble.
Schedule v_half_schedule(int pipeline, int micro_batches, bool in_full) {
  const int p = pipeline, shift = p % 2 == 0 ? 3 : 0;
  std::vector<FirstSlots> first;
  first.reserve(at(p));
  for (int r = 0; r < p; ++r) {
    first.push_back({2 * r, 3 * p - 2 - r, 3 * p - 1 + shift + 2 * r, 6 * p - 2 + shift - r});
  }
  return from_first_slots("v-half", first, micro_batches, in_full);
}

// A third of what 1F1B holds, about 2p/3m of bubble.
Schedule v_min_schedule(int pipeline, int micro_batches, bool in_full) {
  const int p = pipeline, shift = p % 3 == 0 ? 2 : 0;
  std::vector<FirstSlots> first;
  first.reserve(at(p));
  for (int r = 0; r < p; ++r) {
    first.push_back({r, 2 * p - 1 - r, 2 * p + shift + r, 4 * p - 1 + shift - r});
  }
  return from_first_slots("v-min", first, micro_batches, in_full);
}

}  // namespace trireme
