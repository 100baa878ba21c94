#pragma once

#include <functional>
#include <vector>

#include "planner/plan/job.h"
#include "planner/profile/fit.h"
#include "topology/cluster.h"

namespace trireme {

// The short runs that a profile is made from.
struct ProfileRun {
  Job job;          // pinned to its layout, few steps
  int threads = 1;  // that each rank has on its machine
};

struct ProfileSeries {
  std::vector<ProfileRun> ops;       // one pipeline rank each; of every shape at least two depths
  std::vector<ProfileRun> messages;  // two pipeline ranks each; none where there is one device
};

// For a job on the first CPU node of a cluster: every tensor degree that the search would take
// (powers of two, at most one rank per key-value head) with each number of threads that the node's
// layouts give a rank, micro-batches of 1, 4 and 16 samples, as far as the batch goes, and the one
// that the job pins, two depths of the model. Pins of the job other than micro_batch are not looked
// at.
ProfileSeries profile_series(const Job& job, const NodeGroup& nodes);

// The head's part of what embedding and head take, by the kernels that they consist of.
HeadShare head_share(const Job& job, const NodeGroup& nodes);

}  // namespace trireme
