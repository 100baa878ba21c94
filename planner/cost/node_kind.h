#pragma once

#include <map>
#include <optional>
#include <tuple>

#include "planner/cost/communication.h"
#include "planner/cost/kernels.h"
#include "planner/plan/job.h"
#include "planner/plan/layout.h"
#include "planner/profile/measured_step.h"
#include "planner/simulator.h"
#include "topology/cluster.h"

namespace trireme {

WorkShape work_shape(const Job& job, const Execution& execution, const Layout& layout,
                     Recompute recompute);

StageCost plus(const StageCost& a, const StageCost& b);
StageCost times(double factor, const StageCost& cost);

// What of `cost` a step of this layout has: evaluation ends with the forwards.
double work_of(const Layout& layout, const StageCost& cost);

// Seconds of one micro-batch on the slowest rank of a tensor group.
struct PartSeconds {
  StageCost compute{0, 0, 0};
  StageCost communication{0, 0, 0};  // all-reduces among tensor ranks
  // Input gradients take so much longer where weight gradients are ops of their own, which then
  // hide none of their collectives.
  double more_when_split = 0;

  StageCost shown_communication(bool split) const;
  StageCost total(bool split = false) const;
};

struct ModelSeconds {
  PartSeconds layer, embedding, head;
};

// Of all that a stage consists of, what pick(part) says.
template <class Pick>
StageCost sum_of_stage(const ModelSeconds& model, const Stage& stage, Pick pick) {
  StageCost cost = times(stage.layers, pick(model.layer));
  if (stage.embedding) cost = plus(cost, pick(model.embedding));
  if (stage.head) cost = plus(cost, pick(model.head));
  return cost;
}

// With full backwards or split ones.
StageCost stage_seconds(const ModelSeconds& model, const Stage& stage, bool split);

// What the nodes of one group make of a job's layers. Figures come from the kernel counts and the
// cluster file; on CPU nodes those of a profile take their place where it has them. Keeps
// references to job, execution and cluster, which must outlive it; remembers what it computed, so
// one instance serves one thread.
class NodeKind {
 public:
  NodeKind(const Job& job, const Execution& execution, const Cluster& cluster, size_t group,
           const Profile* profile);

  const NodeGroup& nodes() const { return nodes_; }
  const std::optional<MeasuredStep>& measured() const { return measured_; }
  // Null where nothing was measured on such devices.
  const AcceleratorProfile* accelerator() const { return accelerator_; }

  // `ranks`: how many of the layout sit on this kind of node. CPU slots that outnumber their node's
  // cores share them.
  DeviceSpeed speed(int ranks) const;
  // Of pipeline ranks that recompute so much.
  const ModelSeconds& seconds(const Layout& layout, int ranks, Recompute recompute);

  // One all-reduce of a micro-batch's hidden states among the tensor ranks.
  double tensor_seconds(const Layout& layout) const;

 private:
  ModelSeconds find_seconds(const Layout& layout, int ranks, Recompute recompute) const;
  void add_collectives(const Layout& layout, Recompute recompute, ModelSeconds& result) const;
  void replace_measured(const Layout& layout, Recompute recompute, ModelSeconds& result) const;
  StageCost exposed_communication(double once, Recompute recompute, const StageCost& compute,
                                  bool split) const;

  const Job& job_;
  const Execution& execution_;
  const NodeGroup& nodes_;
  size_t group_;
  Links links_;
  std::optional<MeasuredStep> measured_;
  const AcceleratorProfile* accelerator_ = nullptr;
  std::map<std::tuple<int, int, int, bool, Recompute>, ModelSeconds>
      seconds_;  // tensor, micro-batch, busy slots, sequence parallel, recompute
};

}  // namespace trireme
