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

// Throws Error(bad_input) when pins contradict each other or the job, Error(unavailable) for a
// schedule that is not built.
void check_pins(const Job& job);

// Calls back for every candidate on nodes like `nodes`, in a fixed order: schedules innermost,
// preferred ones first.
void enumerate_layouts(const Job& job, const NodeGroup& nodes, const CandidateSinks& sinks);

}  // namespace trireme
