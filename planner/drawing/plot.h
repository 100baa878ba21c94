#pragma once

#include <optional>
#include <string>
#include <vector>

namespace trireme {

// One quantity over the values of a sweep.
struct PlotPanel {
  std::string name;                           // with its unit
  std::vector<std::optional<double>> values;  // by point; none where there is nothing to show
};

// Quantities over one axis, a panel each.
struct Plot {
  std::string title;
  std::string axis;                 // name of what is swept
  std::vector<std::string> points;  // its values, drawn at equal distances
  std::vector<PlotPanel> panels;
};

// A self-contained SVG: the panels beneath each other, each from zero, points joined where both are
// there.
std::string draw_plot(const Plot& plot);

}  // namespace trireme
