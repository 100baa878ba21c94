#pragma once

#include <string>

#include "planner/drawing/timeline.h"

namespace trireme {

// Chrome trace format (Trace Event Format, complete events; open in chrome://tracing or Perfetto).
// Times of the timeline are seconds.
std::string draw_chrome_trace(const Timeline& timeline);

}  // namespace trireme
