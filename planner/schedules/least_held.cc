#include "planner/schedules/least_held.h"

#include <algorithm>
#include <limits>

#include "planner/schedules/schedules.h"

namespace trireme {

// Layers spread over ranks of different speed and memory seldom come to four times the average on
// one of them.
LeastHeld::LeastHeld(int pipeline, int micro_batches, int layers)
    : micro_batches_(micro_batches),
      held_(static_cast<size_t>(pipeline),
            std::vector<int>(static_cast<size_t>(std::min(layers, 4 * layers / pipeline + 8)) + 1,
                             std::numeric_limits<int>::max())) {
  for (std::vector<int>& of_rank : held_) of_rank.front() = 0;
  most_.assign(held_.front().size(), 0);
}

void LeastHeld::add(const std::string& schedule, int chunks) {
  if (schedule == "naive") {
    naive_ = true;
    return;
  }
  any_ = true;
  const int pipeline = this->pipeline();
  const std::vector<int> peaks = least_peak_activations(schedule, pipeline, chunks, micro_batches_);
  std::fill(most_.begin(), most_.end(), 0);
  for (int rank = 0; rank < pipeline; ++rank) {
    const bool end = rank == 0 || rank == pipeline - 1;
    const int peak = chunks > 1 && end ? 0 : peaks[static_cast<size_t>(rank)];
    std::vector<int>& of_rank = held_[static_cast<size_t>(rank)];
    for (size_t layers = 1; layers < of_rank.size(); ++layers) {
      const int all = static_cast<int>(layers);
      of_rank[layers] = std::min(of_rank[layers], std::max(all, all / chunks * peak));
      most_[layers] = std::max(most_[layers], of_rank[layers]);
    }
  }
}

int LeastHeld::held(int rank, int layers) const {
  const std::vector<int>& of_rank = held_[static_cast<size_t>(rank)];
  const auto at = static_cast<size_t>(layers);
  return at < of_rank.size() ? of_rank[at] : std::max(layers, of_rank.back());
}

}  // namespace trireme
