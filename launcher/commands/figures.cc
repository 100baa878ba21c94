#include "launcher/commands/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "planner/explain.h"

namespace trireme {
namespace {

// 256-colour shades that dark text reads well on, told apart by colour-blind readers (Okabe and
// Ito, "Color Universal Design", 2008).
constexpr std::array<int, 5> kPartColours = {117, 214, 79, 227, 250};
constexpr int kBarColour = 117;

std::string paint(int colour, const std::string& text) {
  return text.empty() ? "" : fmt::format("\x1b[30;48;5;{}m{}\x1b[0m", colour, text);
}

}  // namespace

std::string duration(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3g} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3g} ms", seconds * 1e3);
  constexpr double kNoise = 1e-10;  // below it a time is what rounding left
  return fmt::format("{:.3g} us", seconds < kNoise ? 0 : seconds * 1e6);
}

std::string signed_duration(double seconds) {
  return (seconds < 0 ? "-" : "+") + duration(std::abs(seconds));
}

std::string size(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  return fmt::format("{:.1f} MB", bytes / 1e6);
}

std::string paragraph(const std::string& lead, const std::string& text) {
  constexpr size_t kWidth = 100;
  std::string out = lead;
  size_t column = lead.size();
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find(' ', begin), text.size());
    // A number and its "%" stay together.
    if (text.compare(end, 2, " %") == 0) end = std::min(text.find(' ', end + 1), text.size());
    const bool first = column == lead.size();
    if (!first && column + 1 + end - begin > kWidth) {
      out += "\n" + std::string(lead.size(), ' ');
      column = lead.size();
    } else if (!first) {
      out += " ";
      ++column;
    }
    out += text.substr(begin, end - begin);
    column += end - begin;
    begin = end + 1;
  }
  return out + "\n";
}

std::string bar(double share, int width, bool colour) {
  const int filled = std::clamp(static_cast<int>(std::lround(share * width)), 0, width);
  const std::string rest(static_cast<size_t>(width - filled), ' ');
  if (colour) return paint(kBarColour, std::string(static_cast<size_t>(filled), ' ')) + rest;
  return std::string(static_cast<size_t>(filled), '#') + rest;
}

std::string memory_bar(const MemoryParts& parts, double device_bytes, int width, bool colour) {
  // Of what does not fit, the bar shows the proportions.
  const double whole = std::max(device_bytes, parts.total());
  std::string text;
  double bytes = 0;
  int filled = 0;
  size_t part = 0;
  for (const auto& [name, part_bytes] : named_parts(parts)) {
    bytes += part_bytes;
    const int end = std::max(filled, static_cast<int>(std::lround(bytes / whole * width)));
    const std::string cells(static_cast<size_t>(end - filled), name.front());
    text += colour ? paint(kPartColours[part], cells) : cells;
    filled = end;
    ++part;
  }
  return text + std::string(static_cast<size_t>(width - filled), ' ');
}

std::string memory_legend(bool colour) {
  std::string text;
  size_t part = 0;
  for (const auto& [name, bytes] : named_parts({})) {
    const std::string letter(1, name.front());
    text += (text.empty() ? "" : ", ") + (colour ? paint(kPartColours[part], letter) : letter) +
            " " + name;
    ++part;
  }
  return text;
}

std::string short_name(const Layout& layout) {
  std::string text = fmt::format("{}x{}x{} v{} b{}", layout.tensor, layout.pipeline, layout.data,
                                 layout.chunks, layout.micro_batch);
  for (size_t i = 0; i < layout.shares.size(); ++i) {
    text += fmt::format("{}{}", i == 0 ? " m" : "/", layout.shares[i].micro_batches);
  }
  std::string options;
  if (layout.recompute == Recompute::selective) options += "r";
  if (layout.recompute == Recompute::full) options += "R";
  if (layout.recompute_ranks > 0) options += fmt::format("{}", layout.recompute_ranks);
  if (layout.sequence_parallel) options += "S";
  if (layout.optimizer_sharding > 0) options += "Z";
  return options.empty() ? text : text + " " + options;
}

}  // namespace trireme
