#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "planner/placement.h"
#include "planner/plan/plan.h"
#include "topology/cluster.h"

namespace trireme {

// The layouts that a search looks at: degrees that fit together, the devices of the node groups,
// and the pins. No costs here.
struct CandidateSinks {
  std::function<void(const Layout&)> layout;
  std::function<void(const std::string& layout, const std::string& reason)> rejection;
};

// Throws Error(bad_input) when pins contradict each other or the job.
void check_pins(const Job& job, const Cluster& cluster);

// Calls back for every choice of degrees and micro-batch on nodes of all these kinds together, in a
// fixed order, the plainest first. Each kind holds whole pipeline ranks. Options, schedule and
// chunks of these layouts are open.
void enumerate_degrees(const Job& job, const std::vector<const NodeGroup*>& kinds,
                       const CandidateSinks& sinks);

struct Options {
  Recompute recompute = Recompute::none;
  int recompute_ranks = 0;
  bool sequence_parallel = false;
  int optimizer_sharding = 0;
};

void apply(const Options& options, Layout& layout);

// All options of a layout of these degrees, the plainest first. Recomputation on the first ranks
// alone is tried by eighths of the pipeline. The runtime of CPU ranks has none
// of them, so on CPU nodes they are as pinned.
std::vector<Options> options_of(const Job& job, bool cpu, const Layout& degrees);

// The combinations of a cluster's node groups that pipelines may run through, in pipeline order:
// first each alone, then all sequences of different GPU nodes. Clusters of more than three groups
// keep the order of the file.
std::vector<std::vector<size_t>> group_sequences(const Cluster& cluster);

// Ascending.
std::vector<int> divisors(int n);

// Devices among which tensor parallelism has the node's fastest links.
int link_domain(const NodeGroup& nodes);

// How many pipeline ranks these degrees can have on such nodes.
int pipeline_capacity(const Layout& layout, const NodeGroup& nodes);
// How many whole replicas of such degrees these nodes hold.
int replica_capacity(const Layout& layout, const NodeGroup& nodes);

// The orders in which ranks may be counted through devices, as far as they differ: replicas that
// fill a node come before the pipeline only where that then stays below a leaf switch.
std::vector<Near> near_choices(const PlacedLayout& layout, const Cluster& cluster);

// How a layout that is open in them can be completed.
struct Completion {
  std::string schedule;
  int chunks = 1;
};

// All that the pins leave open for such a pipeline, preferred ones first; some can be built for
// certain numbers of micro-batches only.
std::vector<Completion> possible_completions(const Job& job, int pipeline);

// Schedules of more ops than this are not looked at: their simulation alone would take seconds and
// their ops hundreds of megabytes. A layout with larger micro-batches or more replicas is shorter.
constexpr int64_t kMostOps = int64_t{1} << 22;

// Why a schedule of this shape is not looked at, in words; nothing where it is.
std::optional<std::string> why_not_searched(const std::string& schedule, int pipeline,
                                            int micro_batches, int chunks);

}  // namespace trireme
