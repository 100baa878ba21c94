#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "planner/cost/memory.h"
#include "planner/plan/plan.h"
#include "planner/profile/profile.h"
#include "topology/cluster.h"

namespace trireme {

// What the caller wants to hear besides the plan.
struct PlanOptions {
  int top = 5;                   // best layouts to report, the plan's own included
  bool any_memory = false;       // take layouts that do not fit, too
  bool keep_rejections = false;  // list the layouts that were turned down, with their reasons
  int threads = 0;               // that search; 0: as many as there are cores, up to 8
  // Seconds since some moment, for reporting how long the search took; the planner has no clock of
  // its own.
  std::function<double()> clock = {};
  // Measured figures for CPU nodes, which replace analytic ones where it has them. Must be of the
  // job's model.
  std::shared_ptr<const Profile> profile = {};
  // A legal schedule of the caller's own, with backwards, to plan with instead of the built ones,
  // also of one that is pinned. Its pipeline ranks, chunks and micro-batches are then given, and so
  // is where its stages lie.
  std::shared_ptr<const Schedule> schedule = {};
};

// A layout that cannot be, or is not worth a look, and why. `layout` is as far as it was fixed when
// that became clear, such as "tensor=8" or "tensor=2 pipeline=4 data=8 micro_batch=3".
struct Rejection {
  std::string layout;
  std::string reason;
};

struct Rejections {
  std::vector<Rejection> first;
  int64_t more = 0;
};

struct Alternative {
  Layout layout;
  Prediction prediction;
};

struct PlanResult {
  Plan plan;
  std::vector<Alternative> alternatives;  // the next best, best first
  Rejections rejections;                  // only with keep_rejections
  int64_t considered = 0;                 // layouts whose degrees fit together
  int64_t evaluated = 0;  // of these, simulated; the rest provably cannot be among the best
  double seconds = 0;
  std::vector<std::string>
      notes;  // what the reader should know: idle devices, node groups left out
};

// A layout that does not fit the memory, on its fullest pipeline rank.
struct Miss {
  Layout layout;
  int pipeline_rank = 0;
  MemoryParts needed;
  double device_bytes = 0;

  double missing_bytes() const { return needed.total() - device_bytes; }
};

// The answer where there is no plan.
struct NoPlan {
  std::optional<Miss> closest;  // to fitting; without one no layout was possible at all
  std::string rule;             // then: what the last one broke
  std::string reason;           // the whole answer in a sentence or two
  Rejections rejections;        // only with keep_rejections
};

// The fastest layout of `job` on `cluster`, pins honoured. Searched are
//   tensor                divisors of a node's devices within its fastest links, at most one per
//                         key-value head
//   pipeline, data, chunks, micro-batch   all that fit the devices, layers and the batch
//   schedule              all that are built for training with one version of the weights; of
//                         interleaved's groups the eight shortest, the fastest that fits
//   recompute             none, selective (where attention is unfused), full; on all pipeline ranks
//                         or, where the layout does not fit without, on the first ones, by eighths
//   sequence parallelism  off, on
//   optimizer sharding    off, on
//   placement             replicas or pipeline ranks side by side, or the replicas of a node (Near)
//   kinds of node         one node group, or a pipeline through several of GPU nodes, in any order
//                         (of more than three groups in that of the file), each pipeline rank on
//                         one; or replicas of several kinds (replica_lookout.h)
// On CPU nodes the options stay off unless pinned: CPU ranks run without them. A layout is taken
// when its predicted memory fits the device. The search is exact under the cost model: every layout
// it did not simulate has a lower bound above the result. Among equally fast ones the first in the
// order of enumeration wins, the plainest. Deterministic, with any number of threads; pure.
//
// Throws Error(bad_input) for pins that contradict each other, the job or the schedule.
std::variant<PlanResult, NoPlan> try_plan(const Job& job, const Cluster& cluster,
                                          const PlanOptions& options);
// How many threads it takes. Rejections are listed as they are found, by one.
int search_threads(const PlanOptions& options);
// The same for callers that need a plan: Error(no_layout) with NoPlan's reason.
PlanResult find_plan(const Job& job, const Cluster& cluster, const PlanOptions& options);

}  // namespace trireme
