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

enum class ProfileExtent { whole, pinned };

// For a job on the first CPU node of a cluster, two depths of the model with
//   whole    every tensor degree that the search would take (powers of two, at most one rank per
//            key-value head) with each number of threads that the node's layouts give a rank,
//            micro-batches of 1, 4 and 16 samples, as far as the batch goes, and the one that the
//            job pins; other pins are not looked at
//   pinned   what the layout needs that the job pins: its tensor degree beside 1, which tells what
//            ranks do beside ops, its micro-batch, and the threads of as many ranks as it has. What
//            is not pinned is measured as for the whole.
ProfileSeries profile_series(const Job& job, const NodeGroup& nodes,
                             ProfileExtent extent = ProfileExtent::whole);

// The head's part of what embedding and head take, by the kernels that they consist of.
HeadShare head_share(const Job& job, const NodeGroup& nodes);

}  // namespace trireme
