#pragma once

#include <string>
#include <vector>

#include "planner/cost/memory.h"
#include "planner/plan/plan.h"
#include "topology/cluster.h"

namespace trireme {

// What a reader wants to know of a plan at a glance.

// What the groups of one axis reach across: the most that any of them does.
struct AxisSpan {
  std::string axis;  // tensor, data, pipeline
  int ranks = 1;     // of a group
  int nodes = 1;
  int leaves = 1;  // leaf switches; 1 where the fabric is no tree
};

// Tensor, data, pipeline. `cluster` is the plan's.
std::vector<AxisSpan> axis_spans(const Plan& plan, const Cluster& cluster);

// What fills the devices of one pipeline rank.
struct RankMemory {
  MemoryParts parts;
  double device_bytes = 0;
  double room() const { return device_bytes - parts.total(); }
};

// By pipeline rank, each of one kind of device; of unequal replicas the one that has least room.
// `cluster` is the plan's.
std::vector<RankMemory> memory_by_rank(const Plan& plan, const Cluster& cluster);

// What the step spends most of its time on, in one sentence with what that rests on.
std::string bottleneck(const Plan& plan);

// Of a step's tokens, in the currency of the nodes' price_per_device_hour, the devices that the
// plan uses alone; 0 where the price of one of them is not known.
double cost_per_million_tokens(const Plan& plan, const Cluster& cluster);

}  // namespace trireme
