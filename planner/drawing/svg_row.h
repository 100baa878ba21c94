#pragma once

#include <string>

#include "planner/drawing/timeline.h"

namespace trireme {

// The parts of a timeline's SVG that lie on the time axis of one rank. Lengths are pixels.

// Where a row lies.
struct SvgRow {
  double left = 0, top = 0;
  double cell = 0;   // height of the ops
  double curve = 0;  // height of the memory curve beneath them
  double pixels_per_time = 0;
};

// Fill of an op's cell: its kind's colour, paler for later chunks. Colours after Okabe and Ito,
// "Color Universal Design" (2008), lightened: colour-blind readers tell them apart and dark text
// reads well on them.
std::string cell_colour(OpKind kind, int chunk, int chunks);

// Every op a cell, in an overlapped pair one above the other in a common frame.
std::string svg_cells(const Timeline& timeline, size_t rank, const SvgRow& row);

// `columns` columns over the whole timeline, each filled from below by the shares of its time that
// forward, backward, input gradient and weight gradient took.
std::string svg_shares(const Timeline& timeline, size_t rank, const SvgRow& row, size_t columns);

// The curve of what the rank holds; `most` is as high as the curve may rise.
std::string svg_memory(const Timeline& timeline, size_t rank, const SvgRow& row, double most);

// A length or coordinate with two decimals at most.
std::string svg_number(double value);
// Text with the characters that XML reserves escaped.
std::string svg_escape(const std::string& text);

}  // namespace trireme
