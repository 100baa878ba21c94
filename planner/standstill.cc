#include "planner/standstill.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace trireme {

// Following waits from any stuck rank ends in a circle.
std::vector<size_t> wait_cycle(const std::vector<StuckRank>& ranks) {
  size_t at = 0;
  while (!ranks[at].stuck) ++at;
  for (size_t i = 0; i < ranks.size(); ++i) at = ranks[at].for_rank;
  std::vector<size_t> cycle;
  do {
    cycle.push_back(at);
    at = ranks[at].for_rank;
  } while (at != cycle.front());
  return cycle;
}

size_t culprit_of(const std::vector<StuckRank>& ranks, const std::vector<size_t>& cycle) {
  size_t culprit = cycle.front(), least = SIZE_MAX;
  for (const size_t rank : cycle) {
    const StuckRank& wait = ranks[rank];
    const size_t move = wait.for_step - ranks[wait.for_rank].at;
    if (move < least || (move == least && wait.for_rank < culprit)) {
      least = move;
      culprit = wait.for_rank;
    }
  }
  return culprit;
}

std::string describe_cycle(const std::vector<StuckRank>& ranks, const std::vector<size_t>& cycle) {
  constexpr size_t kMost = 16;
  std::string chain;
  for (size_t i = 0; i < std::min(cycle.size(), kMost); ++i) {
    const StuckRank& wait = ranks[cycle[i]];
    chain += fmt::format("{}rank {} at {} waits for {} of rank {}", i == 0 ? "" : ", ", cycle[i],
                         wait.waiting, wait.needed, wait.for_rank);
  }
  if (cycle.size() > kMost) chain += fmt::format(", and {} more", cycle.size() - kMost);
  return chain;
}

std::string draw_standstill(const std::vector<StuckRank>& ranks, const std::vector<size_t>& steps,
                            const std::function<std::string(size_t rank, size_t step)>& name,
                            size_t culprit) {
  constexpr size_t kBefore = 4, kAfter = 4, kMostRanks = 32;
  std::string grid;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    // However many ranks there are, the culprit is drawn.
    if (rank >= kMostRanks && rank != culprit) continue;
    const size_t head = ranks[rank].at;
    const size_t from = head > kBefore ? head - kBefore : 0;
    grid += fmt::format("rank {:>3} {}", rank, from > 0 ? "..." : "   ");
    for (size_t i = from; i < std::min(steps[rank], head + 1 + kAfter); ++i) {
      std::string cell = name(rank, i);
      if (i == head && rank == culprit) {
        cell = fmt::format("!{}!", cell);
      } else if (i == head) {
        cell = fmt::format("[{}]", cell);
      }
      grid += fmt::format(" {:>7}", cell);
    }
    if (ranks[rank].stuck) {
      grid += fmt::format("   waits for {} of rank {}", ranks[rank].needed, ranks[rank].for_rank);
    }
    grid += "\n";
  }
  if (ranks.size() > kMostRanks) {
    grid += fmt::format("({} ranks in all)\n", ranks.size());
  }
  return grid;
}

}  // namespace trireme
