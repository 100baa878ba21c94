#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "planner/candidates.h"
#include "planner/choices.h"
#include "planner/cost/step.h"
#include "planner/look.h"
#include "planner/shares.h"
#include "planner/trials.h"

namespace trireme {

// Takes closer looks at layouts whose replicas lie on nodes of different kinds, each whole on one:
// a set of them for each kind, with as many micro-batches as its devices manage while the others
// work. All have the same degrees, cut, options and schedule by name. Searched are
//   kinds of node         all sets of two and more; each has as many replicas as it has room for
//   micro-batches         all counts of each set that add up to the batch
//   tensor, pipeline, micro-batch, chunks, schedule, options, placement   as for others, but
//                         recomputation is on all pipeline ranks or none
// The cut is the fastest for the kind whose layers take longest. The step takes as long as the
// slowest set, with its share of the reductions among all replicas. Of an exact candidate the set
// that takes longest is the first.
//
// Keeps references to what it is made from; one instance serves one thread.
class ReplicaLookout {
 public:
  ReplicaLookout(const Job& job, const Cluster& cluster, const PlanOptions& options,
                 StepModel& model, ScheduleTrials& trials, Choices& choices)
      : job_(job),
        cluster_(cluster),
        options_(options),
        model_(model),
        trials_(trials),
        choices_(choices) {}

  // A candidate for all degrees that such replicas may have; their orders follow on `order`.
  std::vector<Candidate> degrees(int64_t order);
  // Layouts that these degrees stand for, but for how ranks and micro-batches are shared out.
  int64_t layouts(const Candidate& degrees);
  Look look(const Candidate& candidate, const Enough& enough);
  std::vector<Stage> cut(const PlacedLayout& layout);

 private:
  struct Cut;
  struct Order;
  // A step of a set, with groups of so many micro-batches.
  struct Timed {
    double seconds = std::numeric_limits<double>::infinity();
    std::optional<int> group = std::nullopt;
  };

  void enumerate(const std::vector<size_t>& groups, std::vector<Candidate>& found);
  std::optional<Candidate> degrees_on(const std::vector<size_t>& groups, const Layout& of_replica);
  static double least_seconds(const std::vector<ReplicaSet>& sets,
                              const std::vector<StepBound>& bounds, double micro_batches);
  double bound_of(const PlacedLayout& layout);
  bool resident_fits(const PlacedLayout& layout);
  Look open(const Candidate& degrees);
  Look complete(const Candidate& options);
  Look share_out(const Candidate& completed, const Enough& enough);
  Look predict(const Candidate& exact);
  Cut cut_of(const PlacedLayout& layout);
  std::vector<StepBound> bounds_of(const PlacedLayout& layout, const Order& order) const;
  Way most_that_may_fit(const PlacedLayout& layout, const Cut& cut);
  double searched_further(const Candidate& completed,
                          const std::vector<std::vector<StepBound>>& bounds_by_order,
                          const Way& most) const;
  std::vector<std::pair<int64_t, int64_t>> numbers_within(const PlacedLayout& layout,
                                                          const std::vector<StepBound>& bounds,
                                                          const Way& most, double end) const;
  std::vector<Shares::Set> sets_within(const PlacedLayout& layout, const Cut& cut,
                                       const std::vector<StepBound>& bounds, const Way& most,
                                       double end) const;
  bool find_best(const PlacedLayout& layout, const std::vector<Stage>& stages, Shares& shares,
                 double most, Candidate& found);
  bool fits(const PlacedLayout& part, const std::vector<Stage>& stages);
  Timed timed_step(const PlacedLayout& part, const std::vector<Stage>& stages, double most);
  static void take(const PlacedLayout& layout, const std::vector<Timed>& timed,
                   Candidate& candidate);

  const Job& job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  StepModel& model_;
  ScheduleTrials& trials_;
  Choices& choices_;
};

}  // namespace trireme
