#include "planner/drawing/svg_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace trireme {
namespace {

constexpr double kGlyph = 6.4;  // width of a digit at the label size of 11 pixels

constexpr size_t kMostSteps = 5000;

// The label of a cell, where it fits.
std::string svg_label(const Op& op, double x, double y, double width, double height) {
  const std::string text = fmt::to_string(op.micro_batch);
  const double size = std::min(
      {11.0, 0.82 * height, 11 * (width - 1) / (kGlyph * static_cast<double>(text.size()))});
  if (size < 6) return "";
  return fmt::format("<text x='{}' y='{}' font-size='{}'>{}</text>\n", svg_number(x + width / 2),
                     svg_number(y + height / 2 + 0.36 * size), svg_number(size), text);
}

struct Cell {
  double x, y, width, height;
};

std::string svg_cell(const Timeline& timeline, const Op& op, const OpTimes& times,
                     const Cell& cell) {
  const Schedule& schedule = *timeline.schedule;
  const int chunk = schedule.stages[static_cast<size_t>(op.stage)].chunk;
  return fmt::format(
      "<rect x='{}' y='{}' width='{}' height='{}' fill='{}'><title>{}: {}, stage {}, micro-batch "
      "{}, {:.6g} to {:.6g}</title></rect>\n",
      svg_number(cell.x), svg_number(cell.y), svg_number(cell.width), svg_number(cell.height),
      cell_colour(op.kind, chunk, schedule.chunks()), to_string(op), name_of(op.kind), op.stage,
      op.micro_batch, times.start, times.end);
}

using Shares = std::vector<std::array<double, 4>>;  // by column and kind, of 1

Shares shares_of(const Timeline& timeline, size_t rank, size_t columns) {
  Shares shares(columns, {0, 0, 0, 0});
  const double width = timeline.end / static_cast<double>(columns);
  const std::vector<Op>& program = timeline.schedule->ranks[rank];
  for (size_t i = 0; i < program.size(); ++i) {
    OpTimes times = (*timeline.times)[rank][i];
    // The ops of a pair share its window.
    const double middle = (times.start + times.end) / 2;
    if (program[i].overlaps_next) times.end = middle;
    if (i > 0 && program[i - 1].overlaps_next) times.start = middle;
    auto column = static_cast<size_t>(std::max(0.0, times.start / width));
    for (; column < columns && static_cast<double>(column) * width < times.end; ++column) {
      const double begin = std::max(times.start, static_cast<double>(column) * width);
      const double end = std::min(times.end, static_cast<double>(column + 1) * width);
      shares[column][static_cast<size_t>(program[i].kind)] += std::max(0.0, end - begin) / width;
    }
  }
  return shares;
}

// A curve with more steps than anyone can see, as the highest value of each pixel.
std::vector<MemoryStep> thinned(const std::vector<MemoryStep>& steps, double pixels_per_time) {
  std::vector<MemoryStep> thin;
  for (const MemoryStep& step : steps) {
    const double pixel = std::floor(step.time * pixels_per_time) / pixels_per_time;
    if (!thin.empty() && thin.back().time == pixel) {
      thin.back().units = std::max(thin.back().units, step.units);
    } else {
      thin.push_back({pixel, step.units});
    }
  }
  return thin;
}

}  // namespace

std::string cell_colour(OpKind kind, int chunk, int chunks) {
  constexpr std::array<std::array<int, 3>, 4> kColours = {
      {{127, 196, 240}, {243, 178, 82}, {245, 228, 104}, {98, 196, 164}}};
  const double paler = chunks < 2 ? 0 : 0.6 * chunk / (chunks - 1);
  const auto& colour = kColours[static_cast<size_t>(kind)];
  const auto mix = [&](int part) {
    return static_cast<int>(std::lround(part + paler * (255 - part)));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(colour[0]), mix(colour[1]), mix(colour[2]));
}

std::string svg_cells(const Timeline& timeline, size_t rank, const SvgRow& row) {
  const std::vector<Op>& program = timeline.schedule->ranks[rank];
  std::string cells, frames, labels;
  for (size_t i = 0; i < program.size(); ++i) {
    const OpTimes& times = (*timeline.times)[rank][i];
    const bool second = i > 0 && program[i - 1].overlaps_next;
    const bool paired = program[i].overlaps_next || second;
    Cell cell{row.left + times.start * row.pixels_per_time, row.top,
              (times.end - times.start) * row.pixels_per_time, row.cell};
    if (program[i].overlaps_next) {
      frames += fmt::format("<rect x='{}' y='{}' width='{}' height='{}'/>\n", svg_number(cell.x),
                            svg_number(cell.y), svg_number(cell.width), svg_number(cell.height));
    }
    if (paired) cell.height /= 2;
    if (second) cell.y += cell.height;
    cells += svg_cell(timeline, program[i], times, cell);
    labels += svg_label(program[i], cell.x, cell.y, cell.width, cell.height);
  }
  std::string svg = "<g stroke='#fff' stroke-width='0.7'>\n" + cells + "</g>\n";
  if (!frames.empty()) {
    svg += "<g fill='none' stroke='#1b1f24' stroke-width='1'>\n" + frames + "</g>\n";
  }
  return labels.empty() ? svg : svg + "<g text-anchor='middle'>\n" + labels + "</g>\n";
}

std::string svg_shares(const Timeline& timeline, size_t rank, const SvgRow& row, size_t columns) {
  const Shares shares = shares_of(timeline, rank, columns);
  const double step = timeline.end * row.pixels_per_time / static_cast<double>(columns);
  const auto x_of = [&](size_t column) {
    return svg_number(row.left + step * static_cast<double>(column));
  };
  const auto y_of = [&](double share) {
    return svg_number(row.top + row.cell - row.cell * std::min(1.0, share));
  };
  std::vector<double> below(columns, 0);
  std::string svg;
  for (size_t kind = 0; kind < 4; ++kind) {
    std::string edges;  // the upper one from left to right, then the lower one back
    double most = 0;
    for (size_t c = 0; c < columns; ++c) {
      const double share = shares[c][kind];
      most = std::max(most, share);
      edges += fmt::format("{}{} {}H{}", c == 0 ? "M" : "L", x_of(c), y_of(below[c] + share),
                           x_of(c + 1));
    }
    for (size_t c = columns; c-- > 0;) {
      edges += fmt::format("L{} {}H{}", x_of(c + 1), y_of(below[c]), x_of(c));
      below[c] += shares[c][kind];
    }
    if (most == 0) continue;
    svg += fmt::format("<path fill='{}' d='{}Z'/>\n", cell_colour(static_cast<OpKind>(kind), 0, 1),
                       edges);
  }
  return svg;
}

std::string svg_memory(const Timeline& timeline, size_t rank, const SvgRow& row, double most) {
  if (timeline.memory == nullptr || most <= 0) return "";
  std::vector<MemoryStep> steps = (*timeline.memory)[rank];
  if (steps.empty()) return "";
  if (steps.size() > kMostSteps) steps = thinned(steps, row.pixels_per_time);
  const double bottom = row.top + row.cell + row.curve;
  std::string path = fmt::format("M{} {}", svg_number(row.left), svg_number(bottom));
  std::string last_x, last_y;
  for (const MemoryStep& step : steps) {
    const std::string x = svg_number(row.left + step.time * row.pixels_per_time);
    const std::string y = svg_number(bottom - (row.curve - 1) * step.units / most);
    if (x == last_x && y == last_y) continue;
    path += fmt::format("H{}V{}", x, y);
    last_x = x;
    last_y = y;
  }
  path += fmt::format("H{}V{}Z", svg_number(row.left + timeline.end * row.pixels_per_time),
                      svg_number(bottom));
  return fmt::format("<path fill='#c9d1da' stroke='#5c6773' stroke-width='0.6' d='{}'/>\n", path);
}

std::string svg_number(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string svg_escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace trireme
