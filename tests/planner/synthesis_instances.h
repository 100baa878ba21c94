#pragma once

#include <cstdint>
#include <random>

#include "planner/synthesis/automatic.h"

namespace trireme {

// Random requests as the search meets them: 2 to 8 ranks, 2 to 32 micro-batches, mostly uneven
// stages, hops of 0 to 1 forwards, mostly a memory limit. The same seed gives the same ones.
class RandomRequests {
 public:
  explicit RandomRequests(uint64_t seed) : random_(seed) {}

  AutoRequest next(int chunks, int most_ranks = 8, int most_micro_batches = 32) {
    const int pipeline = between(2, most_ranks), micro_batches = between(2, most_micro_batches);
    AutoRequest request = of_size(pipeline, micro_batches, chunks, between(0, 3) > 0);
    const int limit = between(chunks, chunks * (2 * request.pipeline + 1) - 1);
    if (between(0, 3) > 0) request.memory_limit = std::vector<double>{static_cast<double>(limit)};
    return request;
  }

  // Without a memory limit.
  AutoRequest of_size(int pipeline, int micro_batches, int chunks, bool uneven) {
    AutoRequest request;
    request.pipeline = pipeline;
    request.micro_batches = micro_batches;
    request.chunks = chunks;
    request.costs.stages.clear();
    for (int stage = 0; stage < pipeline * chunks; ++stage) {
      const double forward = uneven ? share(0.5, 1.5) : 1;
      const double input = forward * (uneven ? share(0.8, 1.4) : 1);
      request.costs.stages.push_back({forward, input, forward * (uneven ? share(0.6, 1.2) : 1)});
    }
    request.costs.hop = between(0, 1) == 0 ? 0 : share(0, 1);
    return request;
  }

  int between(int least, int most) {
    return least + static_cast<int>(random_() % static_cast<uint64_t>(most - least + 1));
  }
  double share(double least, double most) {
    return least + (most - least) * static_cast<double>(random_() >> 11) * 0x1p-53;
  }

 private:
  std::mt19937_64 random_;
};

inline bool is_uneven(const AutoRequest& request) {
  for (const StageCost& cost : request.costs.stages) {
    if (!(cost == request.costs.stages.front())) return true;
  }
  return false;
}

}  // namespace trireme
