#include "launcher/commands/schedule_costs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
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

const Names kTimes = {"f", "i", "w"};
const Names kTimesAndMemory = {"f", "i", "w", "activation", "kept"};

bool is_heading(const Names& cells) {
  return std::any_of(cells.begin(), cells.end(), [](const std::string& cell) {
    return std::count(kTimesAndMemory.begin(), kTimesAndMemory.end(), cell) == 1;
  });
}

// The columns of a stage cost file: those of its heading, else all in their usual order.
Names columns_of(const Names& cells, const std::string& where) {
  if (!is_heading(cells)) return cells.size() == kTimesAndMemory.size() ? kTimesAndMemory : kTimes;
  Names sorted = cells, times = kTimes, all = kTimesAndMemory;
  std::sort(sorted.begin(), sorted.end());
  std::sort(times.begin(), times.end());
  std::sort(all.begin(), all.end());
  if (sorted == times || sorted == all) return cells;
  throw bad(fmt::format("{}: found columns {}, expected {} or {}, in any order", where,
                        fmt::join(cells, ","), fmt::join(kTimes, ","),
                        fmt::join(kTimesAndMemory, ",")));
}

void add_stage(const Names& cells, const Names& columns, const std::string& where, Costs& costs) {
  if (cells.size() != columns.size()) {
    throw bad(fmt::format("{}: found {} cells, expected {}: {} of one stage", where, cells.size(),
                          columns.size(), fmt::join(columns, ",")));
  }
  StageCost& stage = costs.stages.emplace_back();
  StageMemory memory;
  for (size_t i = 0; i < cells.size(); ++i) {
    double& value = columns[i] == "f"            ? stage.forward
                    : columns[i] == "i"          ? stage.input
                    : columns[i] == "w"          ? stage.weight
                    : columns[i] == "activation" ? memory.activation
                                                 : memory.kept_after_input;
    value = parse_cost(cells[i], fmt::format("{}: cell {}", where, i + 1));
  }
  if (columns.size() == kTimes.size()) return;
  if (memory.kept_after_input > memory.activation) {
    throw bad(fmt::format("{}: found kept {}, expected at most the activation, {}", where,
                          memory.kept_after_input, memory.activation));
  }
  costs.memory.push_back(memory);
}

}  // namespace

Costs parse_costs(const std::string& text) {
  Costs costs;
  StageCost& stage = costs.stages.front();
  std::set<std::string> keys;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    if (!keys.insert(key).second) {
      throw bad(fmt::format("--costs: found {} twice, expected each key once", key));
    }
    double* target = key == "f"          ? &stage.forward
                     : key == "i"        ? &stage.input
                     : key == "w"        ? &stage.weight
                     : key == "comm"     ? &costs.hop
                     : key == "transfer" ? &costs.transfer
                     : key == "overlap"  ? &costs.overlap
                                         : nullptr;
    if (target == nullptr || equals == std::string::npos) {
      throw bad(fmt::format(
          "--costs: found \"{}\", expected f=, i=, w=, comm=, transfer= or overlap= with a number",
          part));
    }
    *target = parse_cost(part.substr(equals + 1), "--costs " + key);
  }
  if (costs.overlap > 1) {
    throw bad(
        fmt::format("--costs overlap: found {}, expected a share from 0 to 1", costs.overlap));
  }
  return costs;
}

void read_stage_costs(const std::string& path, Costs& costs) {
  costs.stages.clear();
  Names columns;
  int line = 0;
  for (const std::string& row : split(read_text_file(path), '\n')) {
    ++line;
    if (row.empty()) continue;
    const Names cells = split(row, ',');
    const std::string where = fmt::format("{}:{}", path, line);
    const bool first = columns.empty();
    if (first) columns = columns_of(cells, where);
    if (first && is_heading(cells)) continue;
    add_stage(cells, columns, where, costs);
  }
  if (costs.stages.empty()) {
    throw bad(fmt::format("{}: found no stage, expected a row f,i,w for each", path));
  }
}

std::vector<double> parse_limits(const std::string& text) {
  std::vector<double> limits;
  for (const std::string& part : split(text, ',')) {
    limits.push_back(parse_cost(part, "--memory-limit"));
  }
  return limits;
}

}  // namespace trireme
