#include "launcher/commands/schedule_costs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

Error bad(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

double parse_cost(const std::string& text, const std::string& where) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || !std::isfinite(value) ||
      value < 0 || value > 1e12) {
    throw bad(fmt::format("{}: found \"{}\", expected a number from 0 to 1e12", where, text));
  }
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find(separator, begin);
    const std::string part = text.substr(begin, end == std::string::npos ? end : end - begin);
    const size_t first = part.find_first_not_of(" \t\r"), last = part.find_last_not_of(" \t\r");
    parts.push_back(first == std::string::npos ? "" : part.substr(first, last - first + 1));
  }
  return parts;
}

using Names = std::vector<std::string>;

// The columns of a stage cost file: those of its heading, else all in their usual order.
bool is_heading(const Names& cells) {
  return !cells.empty() && !cells.front().empty() && std::isalpha(cells.front().front()) != 0;
}

Names heading(const Names& cells, const Names& known, const std::string& where) {
  for (size_t i = 0; i < cells.size(); ++i) {
    if (std::count(known.begin(), known.end(), cells[i]) != 1 ||
        std::find(cells.begin(), cells.end(), cells[i]) - cells.begin() != std::ptrdiff_t(i)) {
      throw bad(fmt::format("{}: cell {}: found column \"{}\", expected each of {} once", where,
                            i + 1, cells[i], fmt::join(known, ", ")));
    }
  }
  return cells;
}

}  // namespace

Costs parse_costs(const std::string& text) {
  Costs costs;
  StageCost& stage = costs.stages.front();
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    double* target = key == "f"      ? &stage.forward
                     : key == "i"    ? &stage.input
                     : key == "w"    ? &stage.weight
                     : key == "comm" ? &costs.hop
                                     : nullptr;
    if (target == nullptr || equals == std::string::npos) {
      throw bad(
          fmt::format("--costs: found \"{}\", expected f=, i=, w= or comm= with a number", part));
    }
    *target = parse_cost(part.substr(equals + 1), "--costs " + key);
  }
  return costs;
}

std::vector<StageCost> read_stage_costs(const std::string& path) {
  const Names known = {"f", "i", "w"};
  Names columns = known;
  std::vector<StageCost> stages;
  int line = 0;
  bool first = true;
  for (const std::string& row : split(read_text_file(path), '\n')) {
    ++line;
    if (row.empty()) continue;
    const Names cells = split(row, ',');
    const std::string where = fmt::format("{}:{}", path, line);
    if (std::exchange(first, false) && is_heading(cells)) {
      columns = heading(cells, known, where);
      continue;
    }
    if (cells.size() != columns.size()) {
      throw bad(fmt::format("{}: found {} cells, expected {}: {} of one stage", where, cells.size(),
                            columns.size(), fmt::join(columns, ",")));
    }
    StageCost& stage = stages.emplace_back();
    for (size_t i = 0; i < cells.size(); ++i) {
      const double value = parse_cost(cells[i], fmt::format("{}: cell {}", where, i + 1));
      (columns[i] == "f" ? stage.forward : columns[i] == "i" ? stage.input : stage.weight) = value;
    }
  }
  if (stages.empty()) {
    throw bad(fmt::format("{}: found no stage, expected a row f,i,w for each", path));
  }
  return stages;
}

std::vector<int> parse_limits(const std::string& text) {
  std::vector<int> limits;
  for (const std::string& part : split(text, ',')) {
    int value = 0;
    const auto [end, status] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (status != std::errc() || end != part.data() + part.size() || value < 0) {
      throw bad(fmt::format(
          "--memory-limit: found \"{}\", expected a number of chunk activations, or one per rank "
          "as in 8,8,6,4",
          part));
    }
    limits.push_back(value);
  }
  return limits;
}

}  // namespace trireme
