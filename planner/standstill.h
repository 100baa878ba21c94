#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace trireme {

// Ranks that wait for each other: which of them, who is to blame, and a picture of it. A rank's
// program is a row of steps here: ops, and where messages block also sends and receives.

// Where a rank stands when nothing moves any more.
struct StuckRank {
  bool stuck = false;   // else it has finished, and only `at` means something
  size_t at = 0;        // its step; the number of its steps when it has finished
  std::string waiting;  // what cannot go on there
  std::string needed;   // what it waits for
  size_t for_rank = 0;  // where that stands
  size_t for_step = 0;
};

// The ranks of one circle of waits, in the order in which they wait for each other. Some rank must
// be stuck, and every stuck rank wait for a stuck rank.
std::vector<size_t> wait_cycle(const std::vector<StuckRank>& ranks);

// Of the ranks in a circle, the one that the least move of a step would free: the step that its
// predecessor waits for stands closest behind the step it is stuck at; the lowest rank on a tie.
size_t culprit_of(const std::vector<StuckRank>& ranks, const std::vector<size_t>& cycle);

// "rank 0 at 0B0 waits for 1B0 of rank 1, rank 1 at ..."
std::string describe_cycle(const std::vector<StuckRank>& ranks, const std::vector<size_t>& cycle);

// Ranks x steps around where each rank stopped: what ran, the step that it waits at in brackets,
// the culprit's in exclamation marks. `steps` is by rank, `name` writes one step.
std::string draw_standstill(const std::vector<StuckRank>& ranks, const std::vector<size_t>& steps,
                            const std::function<std::string(size_t rank, size_t step)>& name,
                            size_t culprit);

}  // namespace trireme
