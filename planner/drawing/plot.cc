#include "planner/drawing/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "planner/drawing/svg_row.h"

namespace trireme {
namespace {

constexpr double kLeft = 90, kRight = 30, kTop = 60, kWidth = 720, kPanel = 170, kGap = 50;

// The least 1, 2 or 5 times a power of ten that parts `most` into at most five steps.
double tick_step(double most) {
  const double power = std::pow(10, std::floor(std::log10(most / 5)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (most / (factor * power) <= 5) return factor * power;
  }
  return 10 * power;
}

class PanelDrawing {
 public:
  PanelDrawing(const Plot& plot, const PlotPanel& panel, double top)
      : plot_(plot), panel_(panel), top_(top) {
    double most = 0;
    for (const auto& value : panel.values) most = std::max(most, value.value_or(0));
    step_ = tick_step(most > 0 ? most : 1);
    most_ = step_ * std::max(1.0, std::ceil(most / step_));
  }

  std::string draw() const { return grid() + line() + points(); }

 private:
  double x_of(size_t point) const {
    const double width = kWidth - kLeft - kRight;
    return kLeft +
           width * (static_cast<double>(point) + 0.5) / static_cast<double>(plot_.points.size());
  }
  double y_of(double value) const { return top_ + kPanel * (1 - value / most_); }

  std::string grid() const {
    std::string svg =
        fmt::format("<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}</text>\n", svg_number(kLeft),
                    svg_number(top_ - 10), svg_escape(panel_.name));
    for (int i = 0; i * step_ <= most_ * (1 + 1e-9); ++i) {
      const double y = y_of(i * step_);
      svg += fmt::format(
          "<path d=\"M{0} {1}H{2}\" stroke=\"#ddd\"/><text x=\"{3}\" y=\"{4}\" "
          "text-anchor=\"end\">{5:.6g}</text>\n",
          svg_number(kLeft), svg_number(y), svg_number(kWidth - kRight), svg_number(kLeft - 8),
          svg_number(y + 4), i * step_);
    }
    for (size_t p = 0; p < plot_.points.size(); ++p) {
      svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                         svg_number(x_of(p)), svg_number(top_ + kPanel + 18),
                         svg_escape(plot_.points[p]));
    }
    return svg;
  }

  std::string line() const {
    std::string path;
    bool joined = false;
    for (size_t p = 0; p < panel_.values.size(); ++p) {
      const auto& value = panel_.values[p];
      if (value) {
        path += fmt::format("{}{} {}", joined ? "L" : "M", svg_number(x_of(p)),
                            svg_number(y_of(*value)));
      }
      joined = value.has_value();
    }
    return fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"#0072b2\" stroke-width=\"2\"/>\n",
                       path);
  }

  std::string points() const {
    std::string svg;
    for (size_t p = 0; p < panel_.values.size(); ++p) {
      if (!panel_.values[p]) continue;
      svg += fmt::format(
          "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"#0072b2\"><title>{} {}: {:.6g}</title>"
          "</circle>\n",
          svg_number(x_of(p)), svg_number(y_of(*panel_.values[p])), svg_escape(plot_.axis),
          svg_escape(plot_.points[p]), *panel_.values[p]);
    }
    return svg;
  }

  const Plot& plot_;
  const PlotPanel& panel_;
  double top_, step_ = 1, most_ = 1;
};

}  // namespace

std::string draw_plot(const Plot& plot) {
  const double height = kTop + static_cast<double>(plot.panels.size()) * (kPanel + kGap) + kGap / 2;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#fff\"/>\n<text x=\"{2}\" y=\"24\" font-size=\"16\">{3}</text>\n",
      svg_number(kWidth), svg_number(height), svg_number(kLeft), svg_escape(plot.title));
  double top = kTop;
  for (const PlotPanel& panel : plot.panels) {
    svg += PanelDrawing(plot, panel, top).draw();
    top += kPanel + kGap;
  }
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n</svg>\n",
                     svg_number((kLeft + kWidth - kRight) / 2), svg_number(height - 10),
                     svg_escape(plot.axis));
  return svg;
}

}  // namespace trireme
