#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "planner/candidates.h"
#include "planner/choices.h"
#include "planner/cost/step.h"
#include "planner/look.h"
#include "planner/open_shares.h"
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
  Look look(const Candidate& candidate);
  std::vector<Stage> cut(const PlacedLayout& layout);

 private:
  struct Cut;
  // A set of replicas, and how long a step of theirs takes at least.
  struct SetBound {
    double replicas = 0;
    StepBound bound;
  };
  // A step of a set, with groups of so many micro-batches.
  struct Timed {
    double seconds = std::numeric_limits<double>::infinity();
    std::optional<int> group = std::nullopt;
  };
  struct TimedOrder {
    Near near = Near::data;
    std::vector<Timed> sets;
  };

  void enumerate(const std::vector<size_t>& groups, std::vector<Candidate>& found);
  std::optional<Candidate> degrees_on(const std::vector<size_t>& groups, const Layout& of_replica);
  static double least_seconds(const std::vector<SetBound>& sets, double micro_batches);
  double bound_of(const PlacedLayout& layout);
  bool resident_fits(const PlacedLayout& layout);
  Look open(const Candidate& degrees);
  Look complete(const Candidate& options);
  Look share_out(const Candidate& completed);
  Look predict(const Candidate& exact);
  Cut cut_of(const PlacedLayout& layout);
  std::vector<std::vector<SetBound>> bounds_of(const PlacedLayout& layout, const Cut& cut) const;
  static double seconds_of(const std::vector<std::vector<SetBound>>& orders, const Way& way);
  static std::vector<double> seconds_by_set(const std::vector<std::vector<SetBound>>& orders,
                                            const Way& way);
  Way most_that_may_fit(const PlacedLayout& layout, const Cut& cut) const;
  bool may_fit(const PlacedLayout& shared, const Cut& cut) const;
  bool find_best(Candidate& candidate, const std::vector<Stage>& stages, OpenShares& shares,
                 double end, Look& look);
  std::vector<TimedOrder> timed_orders(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                       double most, bool every);
  bool fits(const PlacedLayout& part, const std::vector<Stage>& stages) const;
  static void take(const PlacedLayout& layout, const TimedOrder& order, Candidate& candidate);
  std::vector<double> memory_of_fullest(const std::vector<PlacedLayout>& parts,
                                        const std::vector<Prediction>& of_sets) const;

  const Job& job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  StepModel& model_;
  ScheduleTrials& trials_;
  Choices& choices_;
};

}  // namespace trireme
