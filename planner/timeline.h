#pragma once

#include <string>

#include "planner/plan/plan.h"
#include "planner/simulator.h"

namespace trireme {

// Drawings of a simulated step. Pure text in, text out.

// Op costs to draw a plan with: in proportion to the FLOPs of each stage (forward 1, input and
// weight gradient 1 each, plus recomputation), without hops, scaled so that the step's pipeline
// takes as long as the plan predicts. A plan keeps no costs of single ops.
Costs drawing_costs(const Plan& plan);

// One line per rank, at most `width` columns in all: digits for forwards and letters for backwards
// of a micro-batch (modulo 10 and 26), '~' for weight gradients alone, '.' for idle.
std::string timeline_text(const Schedule& schedule, const Simulation& simulation, int width);
std::string timeline_legend();

// A self-contained SVG with legend. `seconds`: times are seconds, else units. Throws
// Error(unavailable) above 100,000 ops.
std::string timeline_svg(const Schedule& schedule, const Simulation& simulation,
                         const std::string& title, bool seconds);

// Chrome trace format (Trace Event Format, complete events; open in chrome://tracing or Perfetto).
// Times are seconds.
std::string timeline_trace(const Schedule& schedule, const Simulation& simulation);

}  // namespace trireme
