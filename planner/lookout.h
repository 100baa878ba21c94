#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "planner/candidates.h"
#include "planner/choices.h"
#include "planner/cost/step.h"
#include "planner/look.h"
#include "planner/replica_lookout.h"
#include "planner/schedules/least_held.h"
#include "planner/search.h"
#include "planner/trials.h"

namespace trireme {

// Takes closer looks at candidates: what it finds follows from the candidate alone, whoever looks
// and in whatever order, but for what is of no interest any more, of which it tells less. Keeps
// references to what it is made from; remembers what it computed, so one instance serves one
// thread.
class Lookout {
 public:
  // Rejected is what cannot be, whatever the costs.
  Lookout(const Job& job, const Cluster& cluster, const PlanOptions& options,
          const std::vector<std::vector<size_t>>& sequences, ScheduleCache& schedules,
          const std::shared_ptr<KnownTimings>& timings, Choices::Reject reject);

  Look look(const Candidate& candidate, const Enough& enough);

  // What these degrees leave to choose on nodes of this sequence.
  const std::vector<Options>& options(const Layout& degrees, size_t sequence);
  const std::vector<Completion>& completions(const Layout& degrees);
  // All options of these degrees, whether they may fit or not.
  std::vector<Candidate> with_options(const Candidate& degrees);
  // The candidate that stands for these degrees, whose completions begin with number `order`.
  Candidate degrees(const Layout& layout, size_t sequence, int64_t order);
  // Bytes that the average pipeline rank needs beyond its device, whatever the schedule: more than
  // none, and no cut fits.
  double lacks_on_average(const PlacedLayout& layout);
  // Bytes that some pipeline rank lacks at least, whatever is still open of the candidate.
  double lacks_at_least(const Candidate& candidate);

  std::vector<Stage> cut(const Candidate& candidate) {
    return candidate.unequal() ? replicas_.cut(candidate.layout) : model_.cut(candidate.layout);
  }
  ReplicaLookout& replicas() { return replicas_; }
  StepModel& model() { return model_; }
  ScheduleTrials& trials() { return trials_; }

 private:
  struct Cut;
  struct Cuts;

  void take(const Options& options, PlacedLayout& layout, size_t sequence);
  int room(const Layout& layout, size_t group) const;
  void spread_fastest(PlacedLayout& layout, size_t sequence, size_t settled);
  template <class Less>
  void spread_by(PlacedLayout& layout, size_t sequence, size_t settled, Less less) const;
  PlacedLayout with_room(PlacedLayout layout, size_t settled) const;
  double bound_of_spreads(PlacedLayout layout, size_t sequence, size_t settled);
  void make_fit(Candidate& candidate, Look& look);
  const LeastHeld& least_held(const Layout& layout);
  bool recomputes_if_needed(const Layout& layout) const;
  Range ranks_of_next_run(const Candidate& options) const;
  Look open_options(const Candidate& degrees);
  Look spread(const Candidate& options);
  Look find_paths(Candidate candidate, const Enough& enough);
  Look complete(Candidate candidate, const Enough& enough);
  Look load_links(Candidate candidate, const Enough& enough);
  Look simulate(Candidate candidate, const Enough& enough);
  Look predict(const Candidate& exact);
  bool find_best(Candidate& candidate, const std::vector<Stage>& stages, double most);
  Cut cut_of(const PlacedLayout& layout, std::vector<Stage> stages) const;
  Cut& cut_for(const PlacedLayout& layout, Cuts& cuts);
  double bound(PlacedLayout layout, Cut& cut);
  std::optional<Look::Missed> miss_at_least(const Candidate& candidate, const CutMemory& cut,
                                            const Enough& enough) const;
  std::optional<Look::Missed> miss(const Candidate& candidate,
                                   const std::vector<MemoryParts>& memory) const;
  bool fits(PlacedLayout layout);

  const Job& job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  const std::vector<std::vector<size_t>>& sequences_;
  StepModel model_;
  ScheduleTrials trials_;
  Choices choices_;
  ReplicaLookout replicas_;  // for candidates of unequal replicas
  std::map<std::pair<std::string, std::vector<Run>>, bool> fit_;  // by description and runs
  std::map<std::pair<int, int>, LeastHeld> held_;                 // by pipeline and micro-batches
};

}  // namespace trireme
