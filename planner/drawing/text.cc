#include "planner/drawing/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace trireme {
namespace {

constexpr int kLabelColumns = 10;  // "rank   0  "
constexpr size_t kIdle = SIZE_MAX;

char mark_of(const Op& op) {
  switch (op.kind) {
    case OpKind::forward:
      return static_cast<char>('0' + op.micro_batch % 10);
    case OpKind::backward:
    case OpKind::backward_input:
      return static_cast<char>('a' + op.micro_batch % 26);
    case OpKind::backward_weight:
      return '~';
  }
  return '?';
}

// Black on one of the 256 terminal colours nearest to those of the SVG; the second shade is paler.
std::string paint(OpKind kind, int micro_batch, const std::string& text) {
  constexpr std::array<std::array<int, 2>, 4> kColours = {
      {{117, 153}, {214, 222}, {227, 230}, {79, 158}}};
  const int colour = kColours[static_cast<size_t>(kind)][static_cast<size_t>(micro_batch % 2)];
  return fmt::format("\x1b[30;48;5;{}m{}\x1b[0m", colour, text);
}

// Which op of the rank each column shows: the one that runs at the column's middle.
std::vector<size_t> ops_by_column(const Timeline& timeline, size_t rank, size_t columns,
                                  double axis) {
  const std::vector<Op>& program = timeline.schedule->ranks[rank];
  const std::vector<OpTimes>& times = (*timeline.times)[rank];
  std::vector<size_t> shown(columns, kIdle);
  size_t op = 0;
  for (size_t column = 0; column < columns; ++column) {
    const double now = (static_cast<double>(column) + 0.5) / static_cast<double>(columns) * axis;
    while (op < times.size() && times[op].end <= now) ++op;
    if (op == times.size() || times[op].start > now) continue;
    const bool second = program[op].overlaps_next && now > (times[op].start + times[op].end) / 2;
    shown[column] = second ? op + 1 : op;
  }
  return shown;
}

std::string plain_line(const std::vector<Op>& program, const std::vector<size_t>& shown) {
  std::string line;
  for (const size_t op : shown) line += op == kIdle ? '.' : mark_of(program[op]);
  return line;
}

std::string coloured_line(const std::vector<Op>& program, const std::vector<size_t>& shown) {
  std::string line;
  for (size_t begin = 0; begin < shown.size();) {
    const auto first = shown.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto width = static_cast<size_t>(
        std::find_if(first, shown.end(), [&](size_t op) { return op != *first; }) - first);
    if (*first == kIdle) {
      line += std::string(width, ' ');
    } else {
      const Op& op = program[*first];
      std::string label = fmt::to_string(op.micro_batch);
      if (label.size() > width) label = label.substr(label.size() - width);
      line += paint(op.kind, op.micro_batch, fmt::format("{:<{}}", label, width));
    }
    begin += width;
  }
  return line;
}

}  // namespace

std::string draw_text(const Timeline& timeline, const TextStyle& style) {
  const auto columns = static_cast<size_t>(std::max(10, style.width - kLabelColumns));
  const double axis = style.axis > 0 ? style.axis : timeline.end;
  std::string text;
  for (size_t rank = 0; rank < timeline.schedule->ranks.size(); ++rank) {
    const std::vector<Op>& program = timeline.schedule->ranks[rank];
    const std::vector<size_t> shown = ops_by_column(timeline, rank, columns, axis);
    text += fmt::format("rank {:>3}  {}\n", rank,
                        style.colour ? coloured_line(program, shown) : plain_line(program, shown));
  }
  return text;
}

std::string text_legend(bool colour) {
  if (!colour) {
    return "0-9 forward, a-z backward of a micro-batch; ~ weight gradient; . idle";
  }
  std::string text;
  for (const OpKind kind :
       {OpKind::forward, OpKind::backward, OpKind::backward_input, OpKind::backward_weight}) {
    text += paint(kind, 0, "  ") + fmt::format(" {}   ", name_of(kind));
  }
  return text + "numbers are micro-batches";
}

}  // namespace trireme
