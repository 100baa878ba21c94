#pragma once

#include <string>

#include "planner/drawing/timeline.h"

namespace trireme {

// How a timeline is drawn in a terminal or a text file.
struct TextStyle {
  int width = 98;       // columns of a line, rank names included
  bool colour = false;  // ANSI colours: for terminals
  double axis = 0;      // time of the right edge; 0: the timeline's end
};

// One line per rank. In plain text digits are forwards and letters backwards of a micro-batch
// (modulo 10 and 26), '~' weight gradients alone, '.' idle. In colour each op is a cell of its
// kind's colour with the number of its micro-batch, every other micro-batch in a paler shade. Of an
// overlapped pair the first op fills the left half.
std::string draw_text(const Timeline& timeline, const TextStyle& style);

// How to read it, one line.
std::string text_legend(bool colour);

}  // namespace trireme
