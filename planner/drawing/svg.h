#pragma once

#include <string>
#include <vector>

#include "planner/drawing/timeline.h"

namespace trireme {

// A self-contained SVG: the timelines beneath each other on one time axis, each with its title and
// facts, a row per rank with a cell per op (labelled with its micro-batch where that fits; a
// tooltip tells the rest), the curve of held activations beneath each row, and one legend. Above
// 20,000 ops a timeline is drawn coarsely: columns that show what share of their time each kind of
// op took. `unit` of the times: "s" (drawn as ms or us where that reads better) or any other word.
std::string draw_svg(const std::vector<Timeline>& timelines, const std::string& unit);

}  // namespace trireme
