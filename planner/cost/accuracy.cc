#include "planner/cost/accuracy.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace trireme {
namespace {

// By how a catalogue name begins. The band is the 90th percentile of the error; with fewer than ten
// runs, twice that of all runs. docs/planner.md has the runs.
struct Ground {
  std::string_view device;
  int runs;
  double band;
};
constexpr Ground kGround[] = {
    {"A100", 420, 0.25}, {"H100", 93, 0.10}, {"B200", 27, 0.25}, {"T4", 20, 0.58}};
constexpr double kUnknown = 0.40;
// Of layouts on CPU slots that were profiled and run: nine of ten errors (docs/profile.md).
constexpr double kProfiled = 0.25;

// What the runs span.
constexpr double kFewestParameters = 0.15e9, kMostParameters = 1.01e12;
constexpr int kMostRanks = 12288, kLongestSequence = 8192;

Ground ground_of_one(std::string_view device) {
  for (const Ground& ground : kGround) {
    if (device.starts_with(ground.device)) return ground;
  }
  return {device, 0, kUnknown};
}

// Of several kinds, "A + B", the one that is known least.
Ground ground_of(std::string_view devices) {
  constexpr std::string_view kAnd = " + ";
  const size_t end = devices.find(kAnd);
  const Ground first = ground_of_one(devices.substr(0, end));
  if (end == std::string_view::npos) return first;
  const Ground rest = ground_of(devices.substr(end + kAnd.size()));
  return rest.band > first.band ? rest : first;
}

// Figures of a profile know of ranks that share cores.
bool is_profiled(const Prediction& prediction) {
  return std::any_of(prediction.breakdown.begin(), prediction.breakdown.end(),
                     [](const auto& part) { return part.first == "shared_cores"; });
}

}  // namespace

Accuracy accuracy_of(const Plan& plan) {
  const Ground ground = ground_of(plan.device);
  Accuracy accuracy{ground.runs, ground.band, {}};
  if (plan.device == "cpu" && is_profiled(plan.prediction)) return {0, kProfiled, {}};
  if (plan.device == "cpu") {
    accuracy.doubts.emplace_back("The figures of CPU slots are nominal; a profile measures them.");
    return accuracy;
  }
  if (ground.runs < 10) {
    accuracy.doubts.push_back(fmt::format(
        "The model was held to {} published run{} on this device.",
        ground.runs == 0 ? "no" : fmt::to_string(ground.runs), ground.runs == 1 ? "" : "s"));
  }
  const auto parameters = static_cast<double>(total_parameters(plan.job.model));
  if (parameters < kFewestParameters || parameters > kMostParameters) {
    accuracy.doubts.emplace_back("Models of this size were not among the measured ones.");
  }
  if (plan.layout.ranks() > kMostRanks) {
    accuracy.doubts.push_back(fmt::format("No measured run had more than {} ranks.", kMostRanks));
  }
  if (plan.job.model.sequence > kLongestSequence) {
    accuracy.doubts.push_back(
        fmt::format("No measured run had sequences longer than {}.", kLongestSequence));
  }
  return accuracy;
}

}  // namespace trireme
