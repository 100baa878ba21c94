#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/plan/layout.h"
#include "planner/simulator.h"

namespace trireme {

// Times that somebody measured on accelerators of one kind, for one model: of a layer on a tensor
// group, as a timer around it shows them (tensor collectives included), and of collectives. Any of
// them may be missing; then the figures of the cluster file stand in.
struct AcceleratorProfile {
  // One micro-batch of one layer; of the embedding and the head where they were measured, too.
  struct Parts {
    StageCost layer{0, 0, 0};
    std::optional<StageCost> embedding = {}, head = {};
    bool operator==(const Parts&) const = default;
  };
  struct MeasuredParts {
    int tensor = 1;
    int micro_batch = 1;
    bool sequence_parallel = false;
    Recompute recompute = Recompute::none;
    Parts parts;
    bool operator==(const MeasuredParts&) const = default;
  };
  enum class Collective { all_reduce, scatter_gather };  // the latter: both steps of as many bytes
  struct MeasuredCollective {
    Collective kind = Collective::all_reduce;
    int ranks = 2;
    int nodes = 1;  // that these ranks sit on
    double bytes = 0;
    double seconds = 0;
    bool operator==(const MeasuredCollective&) const = default;
  };

  std::string device;  // catalogue name, or that of the cluster file's table
  std::vector<MeasuredParts> measured;
  std::vector<MeasuredCollective> collectives;

  // Between measured micro-batches on a straight line, beyond them on the line through the last two
  // (below the smallest, and with one alone, in proportion). Nothing where no micro-batch was
  // measured with these choices.
  std::optional<Parts> parts(int tensor, int micro_batch, bool sequence_parallel,
                             Recompute recompute) const;
  // The same between sizes; what is smaller than the smallest takes as long as that.
  std::optional<double> seconds(Collective kind, int ranks, int nodes, double bytes) const;

  bool operator==(const AcceleratorProfile&) const = default;
};

}  // namespace trireme
