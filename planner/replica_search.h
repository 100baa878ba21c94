#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "planner/choices.h"
#include "planner/cost/step.h"
#include "planner/trials.h"

namespace trireme {

// A layout whose replicas lie on nodes of different kinds, each whole on one: a set of them for
// each kind, with as many micro-batches as its devices manage while the others work. All have the
// same degrees, cut, options and schedule by name; the first set takes longest.
struct MixedReplicas {
  Layout layout;  // with a share for each set
  std::vector<ReplicaSet> sets;
  Near near = Near::data;
  std::vector<Stage> stages;
  std::vector<std::optional<int>> groups;  // of micro-batches, by set
  double seconds = 0;                      // of a step

  PlacedLayout part(size_t set) const { return placed_on_sets(layout, sets, near, set); }
};

// Finds the fastest layouts of that kind by branch and bound. Searched are
//   kinds of node         all sets of two and more; each has as many replicas as it has room for
//   micro-batches         all counts of each set that add up to the batch
//   tensor, pipeline, micro-batch, chunks, schedule, options, placement   as for others, but
//                         recomputation is on all pipeline ranks or none
// The cut is the fastest for the kind whose layers take longest. The step takes as long as
// the slowest set, with its share of the reductions among all replicas. Exact over that space:
// what is left out has a lower bound above the result.
class ReplicaSearch {
 public:
  // Keeps references, which must outlive it. `others`: step times of layouts that are as good as
  // these; of all together options.top are wanted.
  ReplicaSearch(const Job& job, const Cluster& cluster, const PlanOptions& options,
                StepModel& model, ScheduleTrials& trials, Choices& choices,
                std::vector<double> others);

  // Fastest first, one of each layout.
  std::vector<MixedReplicas> run();
  int64_t considered() const { return considered_; }
  int64_t evaluated() const { return evaluated_; }

 private:
  // Degrees and micro-batch with the sets that have room for them.
  struct Degrees {
    Layout layout;
    std::vector<ReplicaSet> sets;
    double bound = 0;
  };
  // What the schedules on one cut have in common, by order of ranks and set.
  struct Cut {
    std::vector<Stage> stages;
    std::vector<std::pair<Near, std::vector<CutTimes>>> times;
  };
  struct Counts {
    double bound = 0;
    std::vector<int> micro_batches;  // by set
  };

  void enumerate(const std::vector<size_t>& groups);
  void add_degrees(const std::vector<size_t>& groups, const Layout& of_replica);
  static PlacedLayout part_of(const Degrees& degrees, size_t set, int micro_batches);
  double bound_of(const Degrees& degrees);
  void open(const Degrees& degrees);
  bool may_fit(const Degrees& degrees);
  Cut cut_of(const Degrees& degrees);
  void complete(const Degrees& degrees, const Cut& cut);
  double bound_of(const MixedReplicas& mixed, size_t set, const CutTimes& times,
                  int64_t micro_batches) const;
  std::optional<std::vector<int64_t>> most_in_time(const MixedReplicas& mixed,
                                                   const std::vector<CutTimes>& times,
                                                   double in_time) const;
  std::vector<Counts> counts_in_time(const MixedReplicas& mixed, const std::vector<CutTimes>& times,
                                     double in_time) const;
  void find_any(MixedReplicas& mixed, const std::vector<CutTimes>& times, double seconds);
  double longest_bound(const MixedReplicas& mixed, const std::vector<CutTimes>& times) const;
  void try_counts(MixedReplicas& mixed, const std::vector<Counts>& all);
  void try_schedules(const MixedReplicas& mixed);
  bool least_fits(const MixedReplicas& mixed) const;
  // Whether all sets have memory for what the shortest groups hold.
  bool fits(const MixedReplicas& mixed);
  double most_of(const MixedReplicas& mixed) const;
  std::optional<MixedReplicas> simulated(const MixedReplicas& mixed, double most);
  void record(MixedReplicas mixed);

  const Job& job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  StepModel& model_;
  ScheduleTrials& trials_;
  Choices& choices_;
  std::vector<double> others_;
  std::vector<Degrees> degrees_;
  std::vector<MixedReplicas> best_;
  double most_ = 0;  // what a step may take to be wanted
  int64_t considered_ = 0, evaluated_ = 0;
};

// What is expected of one: what bounds the step is its first set; memory is that of the
// replica that has least room, and links are the busiest of any set.
Prediction predict(StepModel& model, ScheduleTrials& trials, const MixedReplicas& mixed);

}  // namespace trireme
