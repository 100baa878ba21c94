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
#include "planner/search.h"
#include "planner/trials.h"

namespace trireme {

// How much is known of a candidate: more costs more to find out. `degrees` stands for all options,
// `options` for all ways to spread the pipeline over a sequence of node groups, `spread` for all
// schedules and chunks that complete it, `cut` for all orders of ranks; their seconds bound all
// these from below.
enum class Known { degrees, options, spread, cut, exact };

constexpr double kFirstLook = 1.0 / 256;
constexpr double kGrowth = 8;

struct Candidate {
  PlacedLayout layout;
  size_t sequence = 0;  // of node groups
  // Among candidates of equal seconds the first in the order of enumeration is the better one.
  int64_t order = 0;
  double seconds = 0;  // a lower bound, or the prediction
  Known known = Known::degrees;
  // A simulation stops when the step surely exceeds its bound by this share, which is then the
  // bound; should that become the least, the next one looks kGrowth times as far.
  double further = kFirstLook;
  // Of micro-batches, once the seconds are exact: the fastest that fits.
  std::optional<int> group = std::nullopt;
  // Whether its prediction is to tell when ranks hold most, which takes as long as all the rest.
  bool in_full = false;
};

// More than a layout can have completions, options ways to be spread over kinds of node, and
// degrees options: candidates of degrees number what may come of them without a gap too few.
constexpr int64_t kMostCompletions = int64_t{1} << 16;
constexpr int64_t kMostSpreads = int64_t{1} << 18;
constexpr int64_t kMostOptions = 128;

// What a closer look at a candidate finds.
struct Look {
  struct Missed {
    double seconds = 0;        // a lower bound of the layout that does not fit
    double at_least = 0;       // bytes that it lacks for any schedule; 0: the miss alone tells
    std::optional<Miss> miss;  // where it may be the closest so far
  };

  std::vector<Candidate> found;      // what takes its place, as far as it may fit
  std::vector<Candidate> set_aside;  // what cannot fit, but was not looked at closely
  std::vector<Missed> missed;
  bool first_simulation = false;
  std::optional<Prediction> prediction;  // of an exact candidate, which then stays as it is
};

// Takes closer looks at candidates: what it finds follows from the candidate alone, whoever looks
// and in whatever order, but for misses that are not the closest, of which it tells less. Keeps
// references to what it is made from; remembers what it computed, so one instance serves one
// thread.
class Lookout {
 public:
  // Rejected is what cannot be, whatever the costs.
  Lookout(const Job& job, const Cluster& cluster, const PlanOptions& options,
          const std::vector<std::vector<size_t>>& sequences, ScheduleCache& schedules,
          const std::shared_ptr<KnownTimings>& timings, Choices::Reject reject);

  // What misses no fewer bytes than `closest` is not told in full. The closest miss only comes
  // closer, so an older one makes for more than is needed.
  Look look(const Candidate& candidate, double closest);

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

  StepModel& model() { return model_; }
  ScheduleTrials& trials() { return trials_; }
  Choices& choices() { return choices_; }

 private:
  struct Cut;
  struct Cuts;

  void take(const Options& options, PlacedLayout& layout, size_t sequence);
  std::vector<Run> fastest_spread(const Layout& layout, const std::vector<size_t>& groups);
  double bound_of_spreads(PlacedLayout layout, size_t sequence);
  Look open_options(const Candidate& degrees);
  Look spread(const Candidate& options);
  Look complete(Candidate candidate, double closest);
  Look simulate(Candidate candidate);
  Look predict(const Candidate& exact);
  bool find_best(Candidate& candidate, const std::vector<Stage>& stages, double most);
  Cut cut_of(const PlacedLayout& layout, std::vector<Stage> stages) const;
  Cut& cut_for(const PlacedLayout& layout, Cuts& cuts);
  double bound(PlacedLayout layout, Cut& cut);
  std::optional<Look::Missed> miss_at_least(const Candidate& candidate, const CutMemory& cut,
                                            double closest) const;
  std::optional<Look::Missed> miss(const Candidate& candidate,
                                   const std::vector<MemoryParts>& memory) const;
  bool fits_without_recomputation(PlacedLayout layout);

  const Job& job_;
  const Cluster& cluster_;
  const PlanOptions& options_;
  const std::vector<std::vector<size_t>>& sequences_;
  StepModel model_;
  ScheduleTrials trials_;
  Choices choices_;
  std::map<std::pair<std::string, std::vector<Run>>, bool> fit_;  // by description and runs
};

}  // namespace trireme
