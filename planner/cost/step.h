#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "planner/cost/communication.h"
#include "planner/cost/known_timings.h"
#include "planner/cost/link_traffic.h"
#include "planner/cost/memory.h"
#include "planner/cost/node_kind.h"
#include "planner/layer_cut.h"
#include "planner/placement.h"
#include "planner/plan/plan.h"
#include "planner/schedules/least_held.h"
#include "planner/simulator.h"
#include "planner/step_bound.h"

namespace trireme {

// By pipeline rank, for any schedule on one cut.
struct CutMemory {
  std::vector<MemoryParts> resident;
  std::vector<double> room;              // bytes that the device has beyond what is resident
  std::vector<double> least_activation;  // bytes of one, of the stage of the rank that has least
  std::vector<double> passing;           // what is held besides, while an op runs
};

// Whatever the number of micro-batches.
struct CutTimes {
  Costs costs;
  // By pipeline rank: the work of a micro-batch, and what of its reductions follows all work; what
  // all its reductions take, and the part of the work that they follow.
  std::vector<double> work, reduction, reductions, work_before;
  double optimizer = 0;  // what follows
};

// What comes before something that every micro-batch takes: no step is shorter, but for what ranks
// that are faster on the way may take over, the more the longer it is.
struct Trip {
  double once = 0, each = 0;
  double faster = 0;  // by that share of the step, divided by its micro-batches

  double seconds(double micro_batches) const {
    return (once + each * micro_batches) / (1 + faster / micro_batches);
  }
};

// Lower bounds of the step time of any cut and schedule, for any number of micro-batches.
struct QuickBound {
  double slowest = 0;  // of a micro-batch on the rank that has most to do
  double average = 0;  // of a micro-batch on the average rank,
  double waits = 0;    // and for how long such a rank waits for its first
  std::vector<Trip> trips = {};

  double seconds(double micro_batches) const {
    double most = std::max(slowest * micro_batches, average * micro_batches + waits);
    for (const Trip& trip : trips) most = std::max(most, trip.seconds(micro_batches));
    return most;
  }
};

// The analytic model of a training step of one job on a cluster: from a layout and where it sits to
// seconds and bytes. Figures come from the cluster file and the kernel counts; on CPU nodes of one
// kind those of a profile take their place where it has them, and ranks that share cores slow each
// other down as they run. Keeps references to job and cluster, which must outlive it; remembers
// what it computed, so one instance serves one thread.
class StepModel {
 public:
  // `profile` may be null; it must be of the job's model (check_profile).
  // Layouts that bear the name of the schedule `own` follow it; it must outlive the model.
  // Models for several threads may share the timings.
  StepModel(const Job& job, const Cluster& cluster, const Profile* profile = nullptr,
            const Schedule* own = nullptr,
            std::shared_ptr<KnownTimings> timings = std::make_shared<KnownTimings>());

  // What figures the prediction of a layout rests on where there is a profile, in a sentence.
  std::string basis(const PlacedLayout& layout) const;

  // Forward and backward of one layer and micro-batch on nodes of this group.
  double layer_seconds(const Layout& layout, size_t group);

  // Lower bounds of the step time of any cut and schedule of this layout, where its messages take
  // at least so long and whatever its reductions take; the same with what all these take; and of
  // the schedule that this layout names on a cut. All schedules on one cut share its times.
  QuickBound quick_bounds(const PlacedLayout& layout, const LinkCost& message = {});
  double quick_bound(const PlacedLayout& layout, const LinkCost& message = {}) {
    return quick_bounds(layout, message).seconds(layout.micro_batches);
  }
  double network_bound(const PlacedLayout& layout);
  // What messages take at least, however many ranks are on each run: all hops count as the slowest,
  // and one leads from each run to the next.
  LinkCost least_message(const PlacedLayout& layout);
  // Of layouts that have the memory, on these runs or all that begin with so many of them, with the
  // schedules that `held` knows and the fastest cut or another that gives a rank's chunks as many
  // layers; infinite: none has.
  double fitting_bound(const PlacedLayout& layout, size_t settled, const LeastHeld& held);
  // Whether the fastest cut fits, whatever the schedule holds and however many ranks each run has,
  // where that can be told at a glance. All ranks recompute alike.
  bool surely_fits(const PlacedLayout& layout);
  // Of the quick bounds. Where runs hold more ranks than the layout has, those of all layouts that
  // have no more on any of them.
  std::vector<Trip> trips(const PlacedLayout& layout, const LinkCost& message = {});
  CutTimes cut_times(const PlacedLayout& layout, const std::vector<Stage>& stages);
  // The same cut of the same layout with its ranks in another order.
  void move(const PlacedLayout& layout, const std::vector<Stage>& stages, CutTimes& times);
  double cut_bound(const PlacedLayout& layout, const CutTimes& times) const;
  // The same for any number of micro-batches, or the one of interest, but for what measured figures
  // say of them.
  StepBound bound_on_cut(const PlacedLayout& layout, const CutTimes& times,
                         std::optional<int> at = std::nullopt) const;
  // How long the busiest of NICs and uplinks is busy, at most, and exactly. No step on this cut is
  // shorter. The latter is of interest where it is more than `step`, and 0 where it surely is not,
  // or where measured figures have it.
  double shared_links_at_most(const PlacedLayout& layout, const std::vector<Stage>& stages) const;
  double shared_links_seconds(const PlacedLayout& layout, const std::vector<Stage>& stages,
                              double step);

  // The cut whose slowest pipeline rank is fastest. `cut` gives way to memory: where the fastest
  // does not fit, each rank has one stage, so that its memory grows with its layers, and all ranks
  // recompute alike, it is the fastest of those that do, if there are any.
  std::vector<Stage> fastest_cut(const PlacedLayout& layout);
  std::vector<Stage> cut(const PlacedLayout& layout);
  bool cut_may_shrink(const Layout& layout) const;
  // The cut that gives way, from the fastest and its memory.
  std::optional<std::vector<Stage>> smaller_cut(const PlacedLayout& layout,
                                                const std::vector<Stage>& fastest,
                                                const CutMemory& memory);
  // Op costs of every stage and the slowest hop between pipeline neighbours.
  Costs costs(const PlacedLayout& layout, const std::vector<Stage>& stages);

  // By pipeline rank, with the activations that this schedule holds.
  std::vector<MemoryParts> memory(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                  const Schedule& schedule) const;
  // What all schedules on one cut have in common, and with it the memory of the schedule that this
  // layout names, at least.
  CutMemory cut_memory(const PlacedLayout& layout, const std::vector<Stage>& stages) const;
  std::vector<MemoryParts> least_memory(const PlacedLayout& layout, const CutMemory& cut) const;
  // Bytes that some device lacks for what any schedule of the layout's name holds; 0 where none
  // does.
  double lacks_at_least(const Layout& layout, const CutMemory& cut) const;
  // Parameters, gradients and optimizer state of the average pipeline rank: the fullest has no
  // less.
  double average_resident(const PlacedLayout& layout);
  double device_memory(const PlacedLayout& layout, int pipeline_rank) const;
  double average_device_memory(const PlacedLayout& layout) const;

  // The predicted step time for a legal schedule, or nothing when it is more than `most`.
  std::optional<double> seconds_within(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                       const std::shared_ptr<const Schedule>& schedule,
                                       double most);
  // The prediction for a legal schedule, memory included: much faster where `seconds_within` had an
  // answer lately. When ranks first hold the most is part of it where `peaks` asks for that.
  Prediction predict(const PlacedLayout& layout, const std::vector<Stage>& stages,
                     const std::shared_ptr<const Schedule>& schedule, bool peaks = false);

 private:
  struct PipelinePaths {
    Path neighbours, ends;
  };

  // From the start of the step.
  struct StepTimes {
    double reduced = 0;    // until every stage's gradients are summed
    double agreed = 0;     // and the two copies of a tied embedding are alike
    double optimizer = 0;  // what follows
    double links = 0;      // until all that is sent has left the busiest shared link
    double total() const { return std::max(agreed + optimizer, links); }
  };

  // Of all pipeline ranks together, and of a layer: parameters, gradients and optimizer state. And
  // what a rank has in reserve.
  struct Resident {
    double all = 0, layer = 0, reserve = 0;
  };
  const Resident& resident(const PlacedLayout& layout);
  LinkCost message_on(const PlacedLayout& layout, const Path& path);
  double reductions_bound(const PlacedLayout& layout);
  struct LayerMemory {
    double resident = 0, activation = 0, room = 0;
    // With so many activations, those of a layer and a micro-batch counting as one.
    double takes(int layers, int held) const { return layers * resident + held * activation; }
    int most_layers(int layers) const;
    int most_layers(int layers, const LeastHeld& held, int rank) const;
  };
  LayerMemory layer_memory(const PlacedLayout& layout, size_t group, Recompute recompute);
  struct KindsWithMemory;
  KindsWithMemory kinds_with_memory(const PlacedLayout& layout, size_t settled);
  struct RankLimits;
  RankLimits rank_limits(const PlacedLayout& layout, size_t settled, const LeastHeld& held);
  std::vector<PartTimes> part_times(const PlacedLayout& layout);
  // Whether weight gradients are ops of their own.
  bool splits(const Layout& layout) const;
  std::vector<Stage> fastest_cut(const PlacedLayout& layout, const std::vector<StagePlace>& places);
  // Null where the figures of no profile stand behind this layout.
  const MeasuredStep* measured(const PlacedLayout& layout) const;
  // What a device of average speed takes.
  const ModelSeconds& run_seconds(const PlacedLayout& layout, const Run& run, Recompute recompute);
  // Calls back with the ranks of a run, the first of which has this number, that recompute and
  // those that do not, if any.
  template <class Callback>
  static void for_each_part(const PlacedLayout& layout, const Run& run, int first,
                            Callback callback) {
    const int end = first + run.pipeline_ranks;
    const int split =
        layout.recompute_ranks == 0 ? end : std::clamp(layout.recompute_ranks, first, end);
    if (split > first) callback(layout.recompute, split - first);
    if (end > split) callback(Recompute::none, end - split);
  }
  // Calls back with what consecutive pipeline ranks take that take the same, and how many these
  // are.
  template <class Callback>
  void for_each_kind(const PlacedLayout& layout, Callback callback) {
    int first = 0;
    for (const Run& run : layout.placement.runs) {
      for_each_part(layout, run, first, [&](Recompute recompute, int ranks) {
        callback(run_seconds(layout, run, recompute), ranks);
      });
      first += run.pipeline_ranks;
    }
  }
  double pace(const PlacedLayout& layout) const;
  const ModelSeconds& model_seconds(const PlacedLayout& layout, int pipeline_rank);
  // Of a message between pipeline ranks, into `costs`, which have those of the stages.
  void add_messages(const PlacedLayout& layout, const std::vector<Stage>& stages, Costs& costs);
  bool on_cpu(const PlacedLayout& layout) const;
  bool follows_own(const Layout& layout) const {
    return own_ != nullptr && layout.schedule == own_->name;
  }
  const Path& data_path(const PlacedLayout& layout);
  const PipelinePaths& pipeline_paths(const PlacedLayout& layout);
  void add_reductions(const PlacedLayout& layout, const std::vector<Stage>& stages,
                      CutTimes& times);
  // Of a parameter's gradient and new weight: what is summed among all replicas, what is scattered
  // and gathered among them, and among those that share an optimizer where not all do.
  struct ReductionBytes {
    double summed = 0, scattered = 0, among_shards = 0;
  };
  ReductionBytes reduction_bytes(const Layout& layout) const;
  // The replicas of a stage, and how long they take for a collective, as measured if it was.
  struct DataGroup {
    int ranks = 1;
    Path path;
    const AcceleratorProfile* profile = nullptr;
    int nodes = 1;  // with a profile: that they sit on
    double seconds(AcceleratorProfile::Collective kind, double bytes) const;
  };
  DataGroup data_group(const PlacedLayout& layout);
  double hidden_reduction(const Stage& stage, double backward, double seconds) const;
  std::vector<double> reduction_seconds(const PlacedLayout& layout,
                                        const std::vector<Stage>& stages);
  std::vector<double> parameters_by_rank(const PlacedLayout& layout,
                                         const std::vector<Stage>& stages) const;
  double optimizer_seconds(const PlacedLayout& layout, const std::vector<Stage>& stages) const;
  std::vector<double> reductions_end(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                     const Timing& timing);
  StepTimes step_times(const PlacedLayout& layout, const std::vector<Stage>& stages,
                       const Timing& timing);
  double tied_bytes(const Layout& layout, const std::vector<Stage>& stages) const;
  double tied_reduction_seconds(const PlacedLayout& layout, const std::vector<Stage>& stages);
  double average_peak(const PlacedLayout& layout) const;  // FLOP/s of a device
  // Of one micro-batch between two stages: what a rank sends, and until the ranks of the other
  // tensor group all have it all.
  double message_bytes(const PlacedLayout& layout) const;
  double gather_seconds(const PlacedLayout& layout);
  // All-reduces among tensor ranks, or pairs of a reduce-scatter and an all-gather.
  struct TensorCalls {
    std::vector<double> count;  // by pipeline rank, in a step
    double bytes = 0;           // that each reduces
  };
  TensorCalls tensor_calls(const PlacedLayout& layout, const std::vector<Stage>& stages);
  RankSends sends(const PlacedLayout& layout, const std::vector<Stage>& stages);
  std::vector<double> tensor_sends(const PlacedLayout& layout, const std::vector<Stage>& stages);
  void add_reduction_sends(const PlacedLayout& layout, const std::vector<Stage>& stages,
                           RankSends& sends);
  std::vector<AxisTraffic> traffic(const PlacedLayout& layout, const std::vector<Stage>& stages,
                                   const RankSends& sends);
  // While an op runs.
  std::vector<double> passing_by_rank(const PlacedLayout& layout,
                                      const std::vector<Stage>& stages) const;
  std::vector<double> activation_bytes(const PlacedLayout& layout,
                                       const std::vector<Stage>& stages) const;
  Costs shared_costs(const PlacedLayout& layout, const std::vector<Stage>& stages,
                     const Schedule& schedule);
  void add_stages(const Costs& seconds, const PlacedLayout& layout,
                  const std::vector<Stage>& stages, Prediction& prediction);
  void add_breakdown(const PlacedLayout& layout, const std::vector<Stage>& stages, double makespan,
                     Prediction& prediction);

  const Job& job_;
  const Execution execution_;
  const Cluster& cluster_;
  Links links_;
  const Schedule* own_;
  bool own_splits_;
  std::vector<NodeKind> kinds_;                              // by node group
  std::map<std::tuple<int, int, int>, Resident> residents_;  // tensor, shards, gradient buffers
  // Of a layer, by tensor, micro-batch, sequence parallel and recompute.
  std::map<std::tuple<int, int, bool, Recompute>, double> activations_;
  // Tensor, data, and where they sit.
  using Ranks = std::tuple<int, int, Near, std::vector<Run>, std::vector<ReplicaSet>, size_t>;
  std::map<Ranks, Path, std::less<>> data_paths_;
  std::array<std::map<Ranks, PipelinePaths, std::less<>>, 2> pipeline_paths_;  // by chunks > 1
  // Of ranks that take so long, with so many chunks or a V of them, in a step that trains or not.
  using CutOf = std::tuple<int, bool, bool, bool, std::vector<std::pair<const ModelSeconds*, int>>>;
  std::map<CutOf, std::vector<Stage>> cuts_;
  std::shared_ptr<KnownTimings> timings_;
};

}  // namespace trireme
