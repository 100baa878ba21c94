#include "launcher/step_book.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace trireme {
namespace {

using Json = nlohmann::json;

// A step whose last report never comes must not hold back the file for ever.
constexpr size_t kOpenSteps = 4;

}  // namespace

std::vector<Json> StepBook::metrics(const Json& metrics) {
  pages_[metrics.at("step").get<int>()].metrics = metrics;
  return complete(false);
}

std::vector<Json> StepBook::busy(int step, double seconds, double window) {
  Page& page = pages_[step];
  ++page.reports;
  page.busy_seconds += seconds;
  page.window = std::max(page.window, window);
  return complete(false);
}

std::vector<Json> StepBook::flush() {
  return complete(true);
}

std::vector<Json> StepBook::complete(bool all) {
  std::vector<Json> lines;
  while (!pages_.empty()) {
    const auto first = pages_.begin();
    const Page& page = first->second;
    const bool whole = !page.metrics.is_null() && page.reports >= ranks_;
    if (!whole && !all && pages_.size() <= kOpenSteps) {
      break;
    }
    if (!page.metrics.is_null()) {
      lines.push_back(line(page));
    }
    pages_.erase(first);
  }
  return lines;
}

Json StepBook::line(Page page) const {
  if (page.reports == ranks_ && page.window > 0) {
    // Sums of op times may exceed the window by their rounding.
    page.metrics["bubble_fraction"] = std::max(0.0, 1 - page.busy_seconds / (ranks_ * page.window));
  }
  page.metrics["predicted_bubble_fraction"] = predicted_bubble_;
  return std::move(page.metrics);
}

std::string metrics_line(const Json& step) {
  std::string line = "{";
  for (const auto& [key, value] : step.items()) {
    const bool as_fp32 = key == "loss" && value.is_number() && std::isfinite(value.get<double>());
    line += fmt::format("{}{}:{}", line.size() == 1 ? "" : ",", Json(key).dump(),
                        as_fp32 ? fmt::format("{:.9g}", value.get<double>()) : value.dump());
  }
  return line + "}";
}

void RunTotals::add(const Json& step) {
  const auto number = [&](const char* key) {
    const auto value = step.find(key);
    return value != step.end() && value->is_number() ? value->get<double>() : std::nan("");
  };
  const auto keep = [](std::vector<double>& values, double value) {
    if (std::isfinite(value)) {
      values.push_back(value);
    }
  };
  last_loss_ = number("loss");
  if (steps_++ == 0) {
    first_loss_ = last_loss_;
  }
  last_step_ = step.value("step", last_step_);
  keep(step_seconds_, number("step_seconds"));
  keep(tokens_per_second_, number("tokens_per_second"));
  keep(bubble_, number("bubble_fraction"));
  slipped_ = std::fmax(slipped_, number("slipped_seconds"));
}

double RunTotals::median(std::vector<double> values) {
  if (values.empty()) {
    return -1;
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace trireme
