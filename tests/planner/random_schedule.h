#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "planner/checker.h"
#include "planner/simulator.h"

namespace trireme {

enum class PlacementKind { loop, v, any };

// Stages on ranks: in a loop, in a V (odd chunks run backwards), or anywhere.
inline std::vector<StagePlace> random_placement(PlacementKind kind, int ranks, int chunks,
                                                std::mt19937& random) {
  std::vector<StagePlace> places;
  std::vector<int> next_chunk(size_t(ranks), 0);
  for (int s = 0; s < ranks * chunks; ++s) {
    int rank = s % ranks;
    if (kind == PlacementKind::v && s / ranks % 2 == 1) rank = ranks - 1 - rank;
    if (kind == PlacementKind::any) rank = static_cast<int>(random() % unsigned(ranks));
    places.push_back({rank, next_chunk[size_t(rank)]++});
  }
  return places;
}

// A legal schedule on these places: ops are issued in a random order that respects the data flow,
// so every program that results can run. Some stages split their backward; with `forward_only` none
// has one.
inline Schedule random_legal_schedule(std::vector<StagePlace> places, int ranks, int micro_batches,
                                      bool forward_only, std::mt19937& random) {
  const auto below = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
  const int stages = static_cast<int>(places.size());
  Schedule schedule{"random", micro_batches, std::move(places), {}};
  schedule.ranks.resize(size_t(ranks));
  // Per micro-batch and stage: 0 nothing yet, 1 F done, 2 I done, 3 all done.
  std::vector<std::vector<int>> state(size_t(micro_batches), std::vector<int>(size_t(stages), 0));
  for (int left = stages * micro_batches; left > 0;) {
    const int i = below(micro_batches), s = below(stages);
    std::vector<int>& row = state[size_t(i)];
    std::vector<Op>& program = schedule.ranks[size_t(schedule.stages[size_t(s)].rank)];
    if (row[size_t(s)] == 0) {
      if (s > 0 && row[size_t(s) - 1] == 0) continue;
      program.push_back({OpKind::forward, false, s, i});
      row[size_t(s)] = forward_only ? 3 : 1;
      left -= forward_only ? 1 : 0;
    } else if (row[size_t(s)] == 1) {
      if (s + 1 < stages && row[size_t(s) + 1] < 2) continue;
      const bool split = below(2) == 0;
      program.push_back({split ? OpKind::backward_input : OpKind::backward, false, s, i});
      row[size_t(s)] = split ? 2 : 3;
      left -= split ? 0 : 1;
    } else if (row[size_t(s)] == 2) {
      program.push_back({OpKind::backward_weight, false, s, i});
      row[size_t(s)] = 3;
      --left;
    }
  }
  return schedule;
}

inline Schedule random_legal_schedule(std::mt19937& random) {
  const auto below = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
  const int ranks = 1 + below(4), chunks = 1 + below(3), micro_batches = 1 + below(4);
  return random_legal_schedule(random_placement(PlacementKind::any, ranks, chunks, random), ranks,
                               micro_batches, false, random);
}

// Makes overlapped pairs of neighbours wherever that leaves the schedule legal, up to `most`.
inline int pair_at_random(Schedule& schedule, int most, std::mt19937& random) {
  int pairs = 0;
  for (int attempts = 3 * most; attempts > 0 && pairs < most; --attempts) {
    std::vector<Op>& program = schedule.ranks[random() % schedule.ranks.size()];
    if (program.size() < 2) continue;
    const size_t at = random() % (program.size() - 1);
    if (program[at].overlaps_next || program[at + 1].overlaps_next) continue;
    if (at > 0 && program[at - 1].overlaps_next) continue;
    program[at].overlaps_next = true;
    if (check_schedule(schedule).legal) {
      ++pairs;
    } else {
      program[at].overlaps_next = false;
    }
  }
  return pairs;
}

}  // namespace trireme
