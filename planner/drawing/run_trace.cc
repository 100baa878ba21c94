#include "planner/drawing/run_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

Error bad(const std::string& path, const std::string& what) {
  return Error(ErrorKind::bad_input, fmt::format("{}: {}", path, what));
}

std::map<int, RankStep> read_rank(const std::string& path, const std::vector<Op>& program) {
  std::map<int, RankStep> steps;
  try {
    for (const Json& event : Json::parse(read_text_file(path))) {
      if (event.value("cat", "") != "op") continue;
      const int step = event.at("args").at("step");
      const auto name = event.at("name").get<std::string>();
      RankStep& ops = steps[step];
      const std::string expected =
          ops.size() < program.size() ? to_string(program[ops.size()]) : "";
      if (name != expected) {
        throw bad(path, fmt::format("step {}: found op {} at position {}, expected {} as planned",
                                    step, name, ops.size(),
                                    expected.empty() ? "the end of the step" : expected));
      }
      const double start = event.at("ts").get<double>() / 1e6;
      ops.push_back({start, start + event.at("dur").get<double>() / 1e6});
    }
  } catch (const Json::exception& error) {
    throw bad(path, fmt::format("is no trace of a rank: {}", error.what()));
  }
  std::erase_if(steps, [&](const auto& step) { return step.second.size() != program.size(); });
  return steps;
}

}  // namespace

std::map<int, std::vector<RankStep>> read_run_trace(const RunDirectory& directory, const Plan& plan,
                                                    Rank member) {
  std::map<int, std::vector<RankStep>> steps;
  size_t pipeline_rank = 0;
  const Schedule& schedule = plan.schedule_of(coordinates_of(plan.layout, member).data);
  for (const Rank rank : pipeline_group(plan.layout, member)) {
    for (auto& [step, ops] : read_rank(directory.rank_trace(rank), schedule.ranks[pipeline_rank])) {
      steps[step].push_back(std::move(ops));
    }
    ++pipeline_rank;
  }
  std::erase_if(steps, [&](const auto& step) { return step.second.size() != pipeline_rank; });
  return steps;
}

std::vector<RankStep> from_zero(std::vector<RankStep> step) {
  double first = std::numeric_limits<double>::infinity();
  for (const RankStep& ops : step) {
    for (const OpTimes& op : ops) first = std::min(first, op.start);
  }
  for (RankStep& ops : step) {
    for (OpTimes& op : ops) op = {op.start - first, op.end - first};
  }
  return step;
}

}  // namespace trireme
