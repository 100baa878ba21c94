#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "planner/cost/communication.h"
#include "planner/cost/kernels.h"
#include "planner/cost/memory.h"
#include "planner/layer_cut.h"
#include "planner/plan/plan.h"
#include "planner/profile/measured_step.h"
#include "planner/simulator.h"

namespace trireme {

// Seconds of one micro-batch on the slowest rank of a tensor group.
struct PartSeconds {
  StageCost compute{0, 0, 0};
  StageCost communication{0, 0, 0};  // all-reduces among tensor ranks
  StageCost total() const;
};

struct ModelSeconds {
  PartSeconds layer, embedding, head;
};

// By pipeline rank, for any schedule on one cut.
struct CutMemory {
  std::vector<MemoryParts> resident;
  std::vector<double> least_activation;  // bytes of one, of the stage of the rank that has least
};

// The analytic model of a training step of one job on one node group: from a layout to seconds and
// bytes. Figures come from the cluster file and the kernel counts; on CPU nodes those of a profile
// take their place where it has them, and ranks that share cores slow each other down as they run.
// Keeps references to job and cluster, which must outlive it; remembers what it computed, so one
// instance serves one thread.
class StepModel {
 public:
  // `profile` may be null; it must be of the job's model (check_profile).
  StepModel(const Job& job, const Cluster& cluster, size_t group, const Profile* profile = nullptr);

  const Job& job() const { return job_; }
  const NodeGroup& nodes() const { return group_; }
  int device_count() const;

  // What figures the prediction of a layout rests on where there is a profile, in a sentence.
  std::string basis(const Layout& layout) const;

  // Lower bounds of the step time of any cut and schedule of this layout, and of any schedule on
  // this cut.
  double quick_bound(const Layout& layout);
  double cut_bound(const Layout& layout, const std::vector<Stage>& stages);

  std::vector<Stage> cut(const Layout& layout);
  // Op costs of every stage and the slowest hop between pipeline neighbours.
  Costs costs(const Layout& layout, const std::vector<Stage>& stages);

  // By pipeline rank, with the activations that this schedule holds.
  std::vector<MemoryParts> memory(const Layout& layout, const std::vector<Stage>& stages,
                                  const Schedule& schedule) const;
  // What all schedules on one cut have in common, and with it the memory of the schedule that this
  // layout names, at least.
  CutMemory cut_memory(const Layout& layout, const std::vector<Stage>& stages) const;
  std::vector<MemoryParts> least_memory(const Layout& layout, const CutMemory& cut) const;
  // Parameters, gradients and optimizer state of the average pipeline rank: the fullest has no
  // less.
  double average_resident(const Layout& layout) const;
  double device_memory() const { return group_.device.memory_bytes; }

  // The prediction for a legal schedule, memory included.
  Prediction predict(const Layout& layout, const std::vector<Stage>& stages,
                     const Schedule& schedule);

 private:
  struct LayoutPaths {
    Path data, pipeline, ends;
  };

  WorkShape shape_of(const Layout& layout) const;
  DeviceSpeed speed_of(const Layout& layout) const;
  // Whether this layout's figures are those of the profile.
  bool measured(const Layout& layout) const { return measured_ && measured_->parts(layout); }
  const ModelSeconds& model_seconds(const Layout& layout);
  const LayoutPaths& paths(const Layout& layout);
  StageCost exposed_communication(double once, Recompute recompute, const StageCost& compute) const;
  double gradient_bytes() const;
  double hidden_reduction(const Layout& layout, const Stage& stage, double seconds);
  std::vector<double> reduction_seconds(const Layout& layout, const std::vector<Stage>& stages);
  std::vector<double> parameters_by_rank(const Layout& layout,
                                         const std::vector<Stage>& stages) const;
  double optimizer_seconds(const Layout& layout, const std::vector<Stage>& stages) const;
  std::vector<double> reductions_end(const Layout& layout, const std::vector<Stage>& stages,
                                     const Simulation& simulation);
  double tied_reduction_seconds(const Layout& layout);
  double message_bytes(const Layout& layout) const;  // of one micro-batch between two stages
  std::vector<AxisTraffic> traffic(const Layout& layout, const std::vector<Stage>& stages);
  std::vector<double> activation_bytes(const Layout& layout,
                                       const std::vector<Stage>& stages) const;
  Costs shared_costs(const Layout& layout, const std::vector<Stage>& stages,
                     const Schedule& schedule);
  void add_stages(const Costs& seconds, const Layout& layout, const std::vector<Stage>& stages,
                  Prediction& prediction);
  void add_breakdown(const Layout& layout, const std::vector<Stage>& stages, double makespan,
                     Prediction& prediction);

  const Job& job_;
  const NodeGroup& group_;
  Links links_;
  std::optional<MeasuredStep> measured_;
  std::map<std::tuple<int, int, int, bool, Recompute>, ModelSeconds>
      seconds_;  // tensor, micro-batch, busy slots, sequence parallel, recompute
  std::map<std::tuple<int, int, int, int>, LayoutPaths>
      paths_;  // tensor, data, pipeline, chunks > 1
};

}  // namespace trireme
