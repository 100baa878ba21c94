#pragma once

#include <functional>
#include <string>
#include <vector>

#include "planner/plan/plan.h"
#include "topology/cluster.h"

namespace trireme {

// The layouts that a search looks at: degrees that fit together, the devices of one node group, and
// the pins. No costs here.
struct CandidateSinks {
  std::function<void(const Layout&)> layout;
  std::function<void(const std::string& layout, const std::string& reason)> rejection;
};

// Throws Error(bad_input) when pins contradict each other or the job.
void check_pins(const Job& job);

// Calls back for every choice of degrees, micro-batch, recomputation, sequence parallelism and
// optimizer sharding on nodes like `nodes`, in a fixed order, the plainest first. Schedule and
// chunks of these layouts are open.
void enumerate_degrees(const Job& job, const NodeGroup& nodes, const CandidateSinks& sinks);

// How a layout that is open in them can be completed.
struct Completion {
  std::string schedule;
  int chunks = 1;
};

// All completions of layouts with this pipeline and so many micro-batches; preferred ones first.
std::vector<Completion> completions(const Job& job, int pipeline, int micro_batches,
                                    const CandidateSinks& sinks);

}  // namespace trireme
