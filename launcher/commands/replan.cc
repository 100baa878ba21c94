#include "launcher/commands/replan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "launcher/commands/figures.h"
#include "launcher/commands/report.h"
#include "planner/drawing/plot.h"
#include "planner/summary.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr size_t kMostValues = 64;

std::optional<double> number_of(std::string_view text) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string> doubled(const std::string& text, size_t dots) {
  const auto first = number_of(std::string_view(text).substr(0, dots));
  const auto last = number_of(std::string_view(text).substr(dots + 2));
  if (!first || !last || !(*first > 0) || !(*first <= *last) || !std::isfinite(*last)) {
    throw Error(ErrorKind::bad_input,
                fmt::format("found \"{}\", expected two numbers above 0, the lower one first, as "
                            "in 8..128",
                            text));
  }
  std::vector<std::string> values;
  double value = *first;
  while (value <= *last) {
    values.push_back(fmt::format("{}", value));
    value *= 2;
  }
  return values;
}

std::vector<std::string> listed(const std::string& text) {
  std::vector<std::string> values;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    values.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return values;
}

double fullest(const Prediction& prediction) {
  const std::vector<double>& bytes = prediction.memory_bytes_per_pipeline_rank;
  return *std::max_element(bytes.begin(), bytes.end());
}

std::string cost_text(const Replan& replan) {
  const double cost = cost_per_million_tokens(*replan.plan(), replan.cluster);
  return cost > 0 ? fmt::format("{:.4g}", cost) : "-";
}

// "2.8 s", and against the first plan "2.8 s (-12.0 %)".
std::string step_text(const Replan& replan, const Replan& first) {
  const double step = replan.plan()->prediction.step_seconds;
  if (&replan == &first || first.plan() == nullptr) return duration(step);
  return fmt::format("{} ({:+.1f} %)", duration(step),
                     100 * (step / first.plan()->prediction.step_seconds - 1));
}

// One row of a table whose columns are plans.
using Cell = std::function<std::string(const Replan&)>;

std::vector<std::pair<std::string, Cell>> what_if_rows(const std::vector<Replan>& plans) {
  const auto of = [](auto text) {
    return [text](const Replan& replan) { return text(*replan.plan()); };
  };
  std::vector<std::pair<std::string, Cell>> rows = {
      {"layout", of([](const Plan& p) { return short_name(p.layout); })},
      {"schedule", of([](const Plan& p) { return p.layout.schedule; })},
      {"devices", of([](const Plan& p) { return fmt::to_string(p.layout.ranks()); })},
      {"device", of([](const Plan& p) { return p.device; })},
      {"step", [&first = plans.front()](const Replan& r) { return step_text(r, first); }},
      {"tokens/s",
       of([](const Plan& p) { return fmt::format("{:.4g}", p.prediction.tokens_per_second); })},
      {"accuracy", of([](const Plan& p) {
         const std::string band = accuracy_band(p);
         return band.empty() ? "-" : band;
       })},
      {"MFU", of([](const Plan& p) { return fmt::format("{:.1f} %", 100 * p.prediction.mfu); })},
      {"fullest device", of([](const Plan& p) { return size(fullest(p.prediction)); })},
      {"cost/M tokens", cost_text}};
  std::vector<std::string> causes;
  for (const Replan& replan : plans) {
    if (replan.plan() == nullptr) continue;
    for (const auto& [cause, seconds] : replan.plan()->prediction.breakdown) {
      if (std::find(causes.begin(), causes.end(), cause) == causes.end()) causes.push_back(cause);
    }
  }
  for (const std::string& cause : causes) {
    rows.emplace_back(cause, [cause](const Replan& replan) -> std::string {
      for (const auto& [name, seconds] : replan.plan()->prediction.breakdown) {
        if (name == cause) return duration(seconds);
      }
      return "-";
    });
  }
  return rows;
}

// As much of a text as a column holds, by words; what is left of it stays behind.
std::string cut_to_column(std::string& text) {
  constexpr size_t kColumn = 25;
  const size_t space = text.rfind(' ', kColumn);
  const size_t end = text.size() <= kColumn || space == std::string::npos ? text.size() : space;
  std::string line = text.substr(0, end);
  text.erase(0, std::min(text.size(), end + 1));
  return line;
}

std::string table_row(std::string name, std::vector<std::string> cells) {
  std::string text;
  do {
    std::string line = fmt::format("{:<21}", name);
    for (std::string& cell : cells) line += fmt::format(" {:<25}", cut_to_column(cell));
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    name.clear();
  } while (std::any_of(cells.begin(), cells.end(), [](const auto& cell) { return !cell.empty(); }));
  return text;
}

// The changes of each column, one beneath the other.
std::string heading(const std::vector<const Replan*>& columns) {
  std::vector<std::vector<std::string>> names;
  size_t height = 0;
  for (const Replan* column : columns) {
    names.push_back(listed(column->name));
    height = std::max(height, names.back().size());
  }
  std::string text;
  for (size_t i = 0; i < height; ++i) {
    std::vector<std::string> cells;
    cells.reserve(names.size());
    for (const auto& of_column : names) {
      cells.push_back(i < of_column.size() ? of_column[i] : "");
    }
    text += table_row("", std::move(cells));
  }
  return text;
}

// Some of the plans beside the first.
std::string what_if_block(const std::vector<const Replan*>& columns,
                          const std::vector<std::pair<std::string, Cell>>& rows) {
  std::string text = heading(columns);
  for (const auto& [name, cell] : rows) {
    std::vector<std::string> cells;
    cells.reserve(columns.size());
    for (const Replan* column : columns) {
      cells.push_back(column->plan() == nullptr ? "no plan" : cell(*column));
    }
    text += table_row(name, std::move(cells));
  }
  return text;
}

}  // namespace

const Plan* Replan::plan() const {
  const auto* result = std::get_if<PlanResult>(&answer);
  return result == nullptr ? nullptr : &result->plan;
}

Sweep parse_sweep(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals + 1 == text.size()) {
    throw Error(ErrorKind::bad_input,
                fmt::format("--sweep: found \"{}\", expected key=values, as in nodes=8..128 or "
                            "device=A100-SXM4-80GB,H100-SXM-80GB",
                            text));
  }
  Sweep sweep{text.substr(0, equals), {}};
  const std::string values = text.substr(equals + 1);
  const size_t dots = values.find("..");
  try {
    sweep.values = dots == std::string::npos ? listed(values) : doubled(values, dots);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("--sweep {}: {}", sweep.key, error.what()));
  }
  if (sweep.values.size() > kMostValues) {
    throw Error(ErrorKind::bad_input,
                fmt::format("--sweep {}: found {} values, expected at most {}", sweep.key,
                            sweep.values.size(), kMostValues));
  }
  return sweep;
}

std::string what_if_table(const std::vector<Replan>& plans) {
  constexpr size_t kBesides = 2;  // columns that fit beside the first
  const auto rows = what_if_rows(plans);
  std::string text;
  for (size_t begin = 1; begin < plans.size(); begin += kBesides) {
    std::vector<const Replan*> columns = {&plans.front()};
    for (size_t i = begin; i < std::min(begin + kBesides, plans.size()); ++i) {
      columns.push_back(&plans[i]);
    }
    text += (text.empty() ? "" : "\n") + what_if_block(columns, rows);
  }
  for (const Replan& replan : plans) {
    if (const auto* none = std::get_if<NoPlan>(&replan.answer)) {
      text += "\n" + paragraph("", replan.name + ": " + none->reason);
    }
  }
  return text;
}

std::string sweep_table(const Sweep& sweep, const std::vector<Replan>& plans) {
  size_t width = std::max<size_t>(18, sweep.key.size());
  for (const Replan& replan : plans) width = std::max(width, replan.name.size());
  std::string text =
      fmt::format("{:<{}} {:>7}  {:<20} {:<13} {:>8} {:>10} {:>6} {:>10}\n", sweep.key, width,
                  "devices", "layout", "schedule", "step", "tokens/s", "MFU", "cost/Mtok");
  for (const Replan& replan : plans) {
    const Plan* plan = replan.plan();
    if (plan == nullptr) {
      text += paragraph(fmt::format("{:<{}} ", replan.name, width),
                        std::get<NoPlan>(replan.answer).reason);
      continue;
    }
    const Prediction& p = plan->prediction;
    text +=
        fmt::format("{:<{}} {:>7}  {:<20} {:<13} {:>8} {:>10.4g} {:>4.1f} % {:>9}\n", replan.name,
                    width, plan->layout.ranks(), short_name(plan->layout), plan->layout.schedule,
                    duration(p.step_seconds), p.tokens_per_second, 100 * p.mfu, cost_text(replan));
  }
  return text;
}

std::string sweep_svg(const Sweep& sweep, const std::vector<Replan>& plans) {
  Plot plot{"", sweep.key, {}, {{"tokens per second", {}}, {"MFU in %", {}}}};
  PlotPanel cost{"cost per million tokens", {}};
  bool priced = false;
  for (const Replan& replan : plans) {
    plot.points.push_back(replan.name);
    const Plan* plan = replan.plan();
    for (PlotPanel* panel : {&plot.panels[0], &plot.panels[1], &cost}) panel->values.emplace_back();
    if (plan == nullptr) continue;
    plot.title = fmt::format("{} on {} over {}", plan->job.name, plan->cluster, sweep.key);
    plot.panels[0].values.back() = plan->prediction.tokens_per_second;
    plot.panels[1].values.back() = 100 * plan->prediction.mfu;
    const double price = cost_per_million_tokens(*plan, replan.cluster);
    if (price > 0) cost.values.back() = price;
    priced = priced || price > 0;
  }
  if (priced) plot.panels.push_back(cost);
  return draw_plot(plot);
}

nlohmann::ordered_json replans_json(const std::vector<Replan>& plans) {
  auto json = nlohmann::ordered_json::array();
  for (const Replan& replan : plans) {
    nlohmann::ordered_json entry = {{"name", replan.name}};
    if (const Plan* plan = replan.plan()) {
      entry["device"] = plan->device;
      entry["layout"] = layout_json(plan->layout);
      entry["prediction"] = prediction_json(plan->prediction);
      const double cost = cost_per_million_tokens(*plan, replan.cluster);
      if (cost > 0) entry["cost_per_million_tokens"] = cost;
    } else {
      entry["no_plan"] = std::get<NoPlan>(replan.answer).reason;
    }
    json.push_back(entry);
  }
  return json;
}

}  // namespace trireme
