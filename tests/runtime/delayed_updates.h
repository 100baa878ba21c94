#pragma once

#include <map>
#include <string>
#include <vector>

#include "planner/plan/plan.h"

namespace trireme::test {

// What asynchronous training computes, without a pipeline: one micro-batch after the other goes
// through all stages and back, on every stage with the weights that have seen max(0, i - (n-1))
// updates since the last drain, where i counts micro-batches since then and n = min(p - s, m);
// after which the newest weights of every stage are updated. Tensor degree 1.
struct DelayedUpdates {
  std::vector<double> losses;  // by step
  std::map<std::string, std::vector<float>> weights;
};
DelayedUpdates train_with_delayed_updates(const Plan& plan);

}  // namespace trireme::test
