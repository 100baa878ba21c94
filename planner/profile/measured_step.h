#pragma once

#include <vector>

#include "planner/plan/plan.h"
#include "planner/profile/profile.h"
#include "planner/shared_cores.h"
#include "topology/cluster.h"

namespace trireme {

// What a profile says about layouts of its job on the machines of one node group: what replaces
// figures that are derived from the cluster file, and what becomes of a step whose ranks share
// cores. Values; keeps a reference to the node group, which must outlive it.
class MeasuredStep {
 public:
  MeasuredStep(const Profile& profile, const NodeGroup& nodes) : profile_(profile), nodes_(nodes) {}

  // Nothing where these degrees were not measured, or the layout recomputes, shards sequences or
  // optimizer states, which no profile measures.
  std::optional<Profile::Parts> parts(const Layout& layout) const;

  // Which figures of the profile stand behind a layout's prediction, in a sentence.
  std::string basis(const Layout& layout) const;

  // Adds to the ops what their messages take of their ranks, and sets the hop.
  void add_messages(const Layout& layout, const std::vector<Stage>& stages, Costs& costs) const;

  // Ranks are numbered through the devices of one machine after the other.
  SharedCores shared_cores(const Layout& layout) const;

  // No step of this layout ends earlier: the cores of each machine have to do all its ops.
  // `seconds`: by pipeline rank, what the ops of a step take at full speed.
  double work_bound(const Layout& layout, const std::vector<double>& seconds) const;

  // The same knowing only what the ops of an average pipeline rank take.
  double average_bound(const Layout& layout, double seconds) const;

  // What follows the last op. `parameters`: of a rank, by pipeline rank. Where ranks outnumber
  // cores, the machine that has most to do decides.
  struct End {
    double exchange = 0;  // of gradients among replicas
    double update = 0;    // everything else
    double total() const { return exchange + update; }
  };
  End end(const Layout& layout, const std::vector<double>& parameters) const;

 private:
  int machine_of(int rank) const { return rank / nodes_.devices; }

  Profile profile_;
  const NodeGroup& nodes_;
};

}  // namespace trireme
