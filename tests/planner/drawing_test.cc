#include "planner/drawing/timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "planner/drawing/chrome_trace.h"
#include "planner/drawing/plan_costs.h"
#include "planner/drawing/svg.h"
#include "planner/drawing/text.h"
#include "planner/schedules/generators.h"
#include "planner/search.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(Drawing, TextShowsWhatRunsWhen) {
  const Schedule schedule = gpipe_schedule(2, 3);
  const Simulation simulation = simulate(schedule, Costs{});  // makespan 12, so one column per unit
  EXPECT_EQ(draw_text(timeline_of(schedule, simulation), {.width = 22}),
            "rank   0  012...aabbcc\n"
            "rank   1  .012aabbcc..\n");
}

TEST(Drawing, TraceHasEveryOpOnItsRank) {
  const Schedule schedule = gpipe_schedule(2, 2);
  const Simulation simulation = simulate(schedule, Costs{});
  const auto trace = nlohmann::json::parse(draw_chrome_trace(timeline_of(schedule, simulation)));
  int ops = 0;
  for (const auto& event : trace["traceEvents"]) ops += event["ph"] == "X" ? 1 : 0;
  EXPECT_EQ(ops, 8);
}

TEST(Drawing, SvgEscapesItsTitle) {
  const Schedule schedule = gpipe_schedule(2, 2);
  const Simulation simulation = simulate(schedule, Costs{});
  Timeline timeline = timeline_of(schedule, simulation);
  timeline.title = "<&>";
  const std::string svg = draw_svg({timeline}, "s");
  EXPECT_THAT(svg, HasSubstr("&lt;&amp;>"));
  EXPECT_THAT(svg, HasSubstr("1B1"));
}

TEST(Drawing, APlanIsDrawnAsLongAsItPredicts) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 1000, 128), 32);
  job.pins.pipeline = 4;
  const Plan plan = find_plan(job, round_cluster(1, 8, 80), {}).plan;
  double pipeline = 0;
  for (size_t i = 0; i < 4; ++i) pipeline += plan.prediction.breakdown[i].second;
  EXPECT_NEAR(makespan_of(plan.schedule, drawing_costs(plan)), pipeline, 1e-12);
}

}  // namespace
}  // namespace trireme
