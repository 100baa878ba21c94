#include "launcher/commands/schedule_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launcher/commands/terminal.h"
#include "planner/checker.h"
#include "planner/drawing/plan_costs.h"
#include "planner/drawing/run_trace.h"
#include "planner/drawing/svg.h"
#include "planner/drawing/text.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using Json = nlohmann::ordered_json;

Error bad(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

// One way to see the step.
struct View {
  const char* key;
  const char* title;
  std::vector<RankStep> times;
  std::vector<std::vector<MemoryStep>> memory = {};
  double makespan = 0;
  std::vector<double> idle = {};
  double bubble_fraction = 0;
};

View measured_view(const Schedule& schedule, std::vector<RankStep> step) {
  View view{"measured", "measured", from_zero(std::move(step))};
  view.memory = held_activations(schedule, view.times);
  std::vector<double> busy;
  for (const RankStep& ops : view.times) {
    busy.push_back(0);
    for (const OpTimes& op : ops) {
      busy.back() += op.end - op.start;
      view.makespan = std::max(view.makespan, op.end);
    }
  }
  double idle = 0;
  for (const double seconds : busy) {
    view.idle.push_back(view.makespan - seconds);
    idle += view.idle.back();
  }
  view.bubble_fraction = idle / (view.makespan * static_cast<double>(busy.size()));
  return view;
}

View simulated_view(const char* key, const char* title, const Schedule& schedule,
                    const Costs& costs) {
  Simulation simulation = simulate(schedule, costs);
  return {key,
          title,
          std::move(simulation.ops),
          std::move(simulation.memory),
          simulation.makespan,
          std::move(simulation.idle),
          simulation.bubble_fraction};
}

std::vector<View> views_of(const Plan& plan, const std::vector<RankStep>& step) {
  Costs measured;
  measured.op_time = [&](int rank, size_t position) {
    const OpTimes& op = step[static_cast<size_t>(rank)][position];
    return op.end - op.start;
  };
  return {
      simulated_view("predicted", "predicted", plan.schedule, drawing_costs(plan)),
      simulated_view("simulated", "simulated with the measured op times", plan.schedule, measured),
      measured_view(plan.schedule, step)};
}

std::string as_json(const std::string& run, int step, const std::vector<View>& views) {
  Json json = {{"run", run}, {"step", step}};
  for (const View& view : views) {
    json[view.key] = {{"makespan_seconds", view.makespan},
                      {"bubble_fraction", view.bubble_fraction},
                      {"idle_seconds", view.idle}};
  }
  return json.dump(2) + "\n";
}

std::string as_table(const std::vector<Timeline>& timelines) {
  double axis = 0;
  for (const Timeline& timeline : timelines) axis = std::max(axis, timeline.end);
  const bool colour = stdout_takes_colour();
  std::string text;
  for (const Timeline& timeline : timelines) {
    text += fmt::format("{}: {}\n", timeline.title, timeline.facts);
    text += draw_text(timeline, {.width = stdout_columns(), .colour = colour, .axis = axis}) + "\n";
  }
  return text + text_legend(colour) + "\n";
}

}  // namespace

std::string compare_with_run(const std::string& run_directory, std::optional<int> step,
                             const std::string& format) {
  const RunDirectory directory{run_directory};
  const Plan plan = read_plan(directory.plan());
  const Verdict verdict = check_schedule(plan.schedule);
  if (!verdict.legal) {
    throw bad(fmt::format("{}: the schedule cannot run: {}", directory.plan(), verdict.reason));
  }
  const auto steps = read_run_trace(directory, plan, Rank(0));
  if (steps.empty()) throw bad(fmt::format("{}: holds no whole step", directory.trace()));
  const auto chosen = step ? steps.find(*step) : std::prev(steps.end());
  if (chosen == steps.end()) {
    throw bad(fmt::format(
        "--step: found {}, expected one of the {} steps from {} to {} that {} holds", *step,
        steps.size(), steps.begin()->first, steps.rbegin()->first, directory.trace()));
  }
  const std::vector<View> views = views_of(plan, chosen->second);
  if (format == "json") return as_json(run_directory, chosen->first, views);
  std::vector<Timeline> timelines;
  timelines.reserve(views.size());
  for (const View& view : views) {
    timelines.push_back(
        {.schedule = &plan.schedule,
         .times = &view.times,
         .memory = &view.memory,
         .end = view.makespan,
         .title = fmt::format("{}, step {}, {}", plan.schedule.name, chosen->first, view.title),
         .facts = fmt::format("pipeline {:.4g} s, bubble {:.1f} %", view.makespan,
                              100 * view.bubble_fraction)});
  }
  return format == "svg" ? draw_svg(timelines, "s") : as_table(timelines);
}

}  // namespace trireme
