#include "planner/drawing/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "planner/drawing/svg_row.h"

namespace trireme {
namespace {

constexpr double kLeft = 84, kWidth = 1160, kRight = 36;
constexpr double kTitle = 50;  // title and facts of a timeline
constexpr double kAxis = 40;
constexpr double kLegend = 44;
constexpr size_t kMostCells = 20'000;
constexpr size_t kColumns = 580;
const char* const kInk = "#1b1f24";
const char* const kGrey = "#5c6773";

// Rows shrink as ranks become many.
struct RowHeights {
  double cell, curve, gap;
  double all() const { return cell + curve + gap; }
};

RowHeights heights_of(size_t ranks) {
  if (ranks <= 16) return {26, 14, 8};
  if (ranks <= 64) return {16, 8, 4};
  return {9, 4, 2};
}

struct Scale {
  double end = 0;     // of the axis, in the timelines' unit
  double factor = 1;  // from that unit to the one written at the axis
  std::string unit;
  double most_held = 0;

  double pixels_per_time() const { return end > 0 ? kWidth / end : 0; }
};

Scale scale_of(const std::vector<Timeline>& timelines, const std::string& unit) {
  Scale scale{.unit = unit};
  for (const Timeline& timeline : timelines) {
    scale.end = std::max(scale.end, timeline.end);
    for (size_t rank = 0; rank < timeline.schedule->ranks.size(); ++rank) {
      scale.most_held = std::max(scale.most_held, timeline.peak(rank));
    }
  }
  if (unit == "s" && scale.end < 1) {
    const bool milli = scale.end >= 1e-3;
    scale.factor = milli ? 1e3 : 1e6;
    scale.unit = milli ? "ms" : "us";
  }
  return scale;
}

std::string text_at(double x, double y, const std::string& attributes, const std::string& text) {
  return fmt::format("<text x='{}' y='{}' {}>{}</text>\n", svg_number(x), svg_number(y), attributes,
                     svg_escape(text));
}

// Distance of the axis marks: 1, 2 or 5 times a power of ten, at most 12 of them.
double tick_of(double end) {
  const double least = end / 12;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double tick : {1.0, 2.0, 5.0}) {
    if (tick * power >= least) return tick * power;
  }
  return 10 * power;
}

std::string svg_axis(const Scale& scale, double top, double bottom) {
  std::string lines, numbers;
  const double end = scale.end * scale.factor;
  if (end > 0) {
    const double tick = tick_of(end);
    for (int i = 0; i * tick <= end * (1 + 1e-9); ++i) {
      const std::string x = svg_number(kLeft + i * tick / end * kWidth);
      lines += fmt::format("<path d='M{} {}V{}'/>\n", x, svg_number(top), svg_number(bottom + 4));
      numbers +=
          fmt::format("<text x='{}' y='{}'>{:.6g}</text>\n", x, svg_number(bottom + 17), i * tick);
    }
  }
  return "<g stroke='#c3cad2' stroke-width='0.6'>\n" + lines + "</g>\n" +
         fmt::format("<g text-anchor='middle' font-size='11' fill='{}'>\n", kGrey) + numbers +
         "</g>\n" +
         text_at(kLeft - 10, bottom + 17,
                 fmt::format("text-anchor='end' font-size='11' fill='{}'", kGrey),
                 scale.unit.empty() ? "time" : "time, " + scale.unit);
}

std::string svg_rank(const Timeline& timeline, size_t rank, const SvgRow& row, const Scale& scale) {
  const bool small = row.cell < 12;
  std::string svg = fmt::format(
      "<rect x='{}' y='{}' width='{}' height='{}' fill='#eceff2'/>\n", svg_number(row.left),
      svg_number(row.top), svg_number(timeline.end * row.pixels_per_time), svg_number(row.cell));
  svg += text_at(kLeft - 10, row.top + row.cell / 2 + (small ? 3 : 4),
                 fmt::format("text-anchor='end' font-size='{}'", small ? 8 : 12),
                 fmt::format("rank {}", rank));
  if (row.curve >= 8 && timeline.memory != nullptr) {
    svg += text_at(
        kLeft - 10, row.top + row.cell + row.curve - 2,
        fmt::format("text-anchor='end' font-size='{}' fill='{}'", row.curve < 12 ? 7 : 10, kGrey),
        fmt::format("holds {:.6g}", timeline.peak(rank)));
  }
  svg += timeline.op_count() <= kMostCells ? svg_cells(timeline, rank, row)
                                           : svg_shares(timeline, rank, row, kColumns);
  return svg + svg_memory(timeline, rank, row, scale.most_held);
}

double height_of(const Timeline& timeline) {
  const size_t ranks = timeline.schedule->ranks.size();
  return kTitle + heights_of(ranks).all() * static_cast<double>(ranks) + kAxis;
}

std::string svg_timeline(const Timeline& timeline, double top, const Scale& scale) {
  std::string svg =
      text_at(kLeft, top + 22, "font-size='16' font-weight='bold'", timeline.title) +
      text_at(kLeft, top + 40, fmt::format("font-size='12' fill='{}'", kGrey), timeline.facts);
  const size_t ranks = timeline.schedule->ranks.size();
  const RowHeights heights = heights_of(ranks);
  const double first = top + kTitle;
  const double bottom = first + heights.all() * static_cast<double>(ranks);
  svg += svg_axis(scale, first - 3, bottom);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const double y = first + heights.all() * static_cast<double>(rank);
    svg += svg_rank(timeline, rank,
                    {kLeft, y, heights.cell, heights.curve, scale.pixels_per_time()}, scale);
  }
  return svg;
}

// What of the legend the timelines need.
struct Shown {
  std::array<bool, 4> kinds = {};
  bool pairs = false, chunks = false, coarse = false;
};

Shown shown_in(const std::vector<Timeline>& timelines) {
  Shown shown;
  for (const Timeline& timeline : timelines) {
    shown.coarse |= timeline.op_count() > kMostCells;
    shown.chunks |= timeline.schedule->chunks() > 1 && timeline.op_count() <= kMostCells;
    for (const std::vector<Op>& program : timeline.schedule->ranks) {
      for (const Op& op : program) {
        shown.kinds[static_cast<size_t>(op.kind)] = true;
        shown.pairs |= op.overlaps_next;
      }
    }
  }
  return shown;
}

class Legend {
 public:
  explicit Legend(double y) : y_(y) {}

  void add(const std::string& swatch, const std::string& text) {
    svg_ += fmt::format("<g transform='translate({} {})'>{}</g>\n", svg_number(x_), svg_number(y_),
                        swatch);
    svg_ += text_at(x_ + 24, y_ + 11, "font-size='12'", text);
    x_ += 24 + 6.6 * static_cast<double>(text.size()) + 22;
  }
  void note(const std::string& text) {
    svg_ += text_at(x_, y_ + 11, fmt::format("font-size='12' fill='{}'", kGrey), text);
    x_ += 6.2 * static_cast<double>(text.size()) + 22;
  }
  const std::string& svg() const { return svg_; }

 private:
  double x_ = kLeft, y_;
  std::string svg_;
};

std::string svg_legend(const Shown& shown, double y) {
  const auto box = [](const std::string& fill) {
    return fmt::format("<rect width='18' height='14' fill='{}'/>", fill);
  };
  Legend legend(y);
  for (size_t kind = 0; kind < shown.kinds.size(); ++kind) {
    if (!shown.kinds[kind]) continue;
    legend.add(box(cell_colour(static_cast<OpKind>(kind), 0, 1)),
               name_of(static_cast<OpKind>(kind)));
  }
  if (shown.pairs) {
    legend.add(
        fmt::format("<rect width='18' height='7' fill='{}'/><rect y='7' width='18' "
                    "height='7' fill='{}'/><rect width='18' height='14' fill='none' "
                    "stroke='{}'/>",
                    cell_colour(OpKind::forward, 0, 1), cell_colour(OpKind::backward, 0, 1), kInk),
        "overlapped pair");
  }
  legend.add(box("#eceff2"), "idle");
  legend.add(
      "<path fill='#c9d1da' stroke='#5c6773' stroke-width='0.6' d='M0 14V8H6V2H12V8H18V14Z'/>",
      "memory held");
  if (shown.coarse) {
    legend.note("column: shares of its time");
  } else {
    legend.note(shown.chunks ? "number: micro-batch; paler: later chunk" : "number: micro-batch");
  }
  return legend.svg();
}

}  // namespace

std::string draw_svg(const std::vector<Timeline>& timelines, const std::string& unit) {
  const Scale scale = scale_of(timelines, unit);
  double height = kLegend;
  for (const Timeline& timeline : timelines) height += height_of(timeline);
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{1}' viewBox='0 0 {0} {1}' "
      "font-family='Helvetica, Arial, sans-serif' fill='{2}'>\n<rect width='{0}' height='{1}' "
      "fill='#fff'/>\n",
      svg_number(kLeft + kWidth + kRight), svg_number(height), kInk);
  double top = 0;
  for (const Timeline& timeline : timelines) {
    svg += svg_timeline(timeline, top, scale);
    top += height_of(timeline);
  }
  return svg + svg_legend(shown_in(timelines), top + 8) + "</svg>\n";
}

}  // namespace trireme
