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

TEST(Drawing, ALongerAxisLeavesRoomAtTheRight) {
  const Schedule schedule = gpipe_schedule(2, 3);
  const Simulation simulation = simulate(schedule, Costs{});
  EXPECT_EQ(draw_text(timeline_of(schedule, simulation), {.width = 25, .axis = 15}),
            "rank   0  012...aabbcc...\n"
            "rank   1  .012aabbcc.....\n");
}

// Three columns a unit: the number, then the cell's colour.
TEST(Drawing, ColourShowsMicroBatchesByNumber) {
  const Schedule schedule = gpipe_schedule(1, 2);
  const Simulation simulation = simulate(schedule, Costs{});  // makespan 6
  EXPECT_EQ(draw_text(timeline_of(schedule, simulation), {.width = 28, .colour = true}),
            "rank   0  \x1b[30;48;5;117m0  \x1b[0m\x1b[30;48;5;153m1  \x1b[0m"
            "\x1b[30;48;5;214m0     \x1b[0m\x1b[30;48;5;222m1     \x1b[0m\n");
}

// F0, the pair of F1 and B0 (1 + 2), B1: half of the pair's window each.
Schedule paired_schedule() {
  Schedule schedule;
  schedule.name = "paired";
  schedule.micro_batches = 2;
  schedule.stages = loop_placement(1, 1);
  schedule.ranks = {{{OpKind::forward, false, 0, 0},
                     {OpKind::forward, true, 0, 1},
                     {OpKind::backward, false, 0, 0},
                     {OpKind::backward, false, 0, 1}}};
  return schedule;
}

TEST(Drawing, APairIsDrawnInHalves) {
  const Schedule schedule = paired_schedule();
  const Simulation simulation = simulate(schedule, Costs{});
  EXPECT_EQ(draw_text(timeline_of(schedule, simulation), {.width = 22}),
            "rank   0  00111aaabbbb\n");
  const std::string svg = draw_svg({timeline_of(schedule, simulation)}, "units");
  EXPECT_THAT(svg, HasSubstr(">overlapped pair</text>"));
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Drawing, SvgHasACellAndALabelForEveryOp) {
  const Schedule schedule = gpipe_schedule(2, 3);
  const Simulation simulation = simulate(schedule, Costs{});
  const std::string svg = draw_svg({timeline_of(schedule, simulation)}, "units");
  EXPECT_EQ(count_of(svg, "<title>"), 12U);
  EXPECT_EQ(count_of(svg, ">2</text>"), 4U + 1U);  // two ranks, forward and backward; and the axis
  EXPECT_EQ(count_of(svg, ">holds 3</text>"), 2U);
  EXPECT_EQ(count_of(svg, ">full backward</text>"), 1U);
  EXPECT_EQ(count_of(svg, ">weight gradient</text>"), 0U);
}

TEST(Drawing, SeveralTimelinesShareOneAxis) {
  const Schedule shorter = gpipe_schedule(1, 1), longer = gpipe_schedule(1, 2);
  const Simulation one = simulate(shorter, Costs{}), two = simulate(longer, Costs{});
  const std::string svg = draw_svg({timeline_of(shorter, one), timeline_of(longer, two)}, "units");
  // A unit is 1160 / 6 pixels in both.
  EXPECT_EQ(count_of(svg, "width='193.33'"), 1U + 2U);
}

// 2 x 2 x 6000 ops: columns instead of cells, in a file of bounded size.
TEST(Drawing, ManyOpsAreDrawnAsShares) {
  const Schedule schedule = gpipe_schedule(2, 6000);
  const Simulation simulation = simulate(schedule, Costs{});
  const std::string svg = draw_svg({timeline_of(schedule, simulation)}, "units");
  EXPECT_EQ(count_of(svg, "<title>"), 0U);
  EXPECT_THAT(svg, HasSubstr("column: shares of its time"));
  EXPECT_LT(svg.size(), 500'000U);
}

TEST(Drawing, ShortSecondsAreWrittenAsMilliseconds) {
  const Schedule schedule = gpipe_schedule(1, 1);
  Costs costs;
  costs.stages = {{0.004, 0.003, 0.003}};
  const Simulation simulation = simulate(schedule, costs);
  const std::string svg = draw_svg({timeline_of(schedule, simulation)}, "s");
  EXPECT_THAT(svg, HasSubstr(">time, ms</text>"));
  EXPECT_THAT(svg, HasSubstr(">10</text>"));
}

// What measured times hold is what the simulator says of the same times.
TEST(Drawing, HeldActivationsAgreeWithTheSimulator) {
  const Schedule schedule = one_forward_one_backward_schedule(3, 5);
  const Simulation simulation = simulate(schedule, Costs{});
  const auto held = held_activations(schedule, simulation.ops);
  for (size_t rank = 0; rank < 3; ++rank) {
    double most = 0;
    for (const MemoryStep& step : held[rank]) most = std::max(most, step.units);
    EXPECT_EQ(most, simulation.peak_memory[rank]);
    EXPECT_EQ(held[rank].back().units, 0);
  }
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
  Plan plan = find_plan(job, round_cluster(1, 8, 80), {}).plan;
  double pipeline = 0;
  for (size_t i = 0; i < 4; ++i) pipeline += plan.prediction.breakdown[i].second;
  EXPECT_NEAR(makespan_of(plan.schedule, drawing_costs(plan)), pipeline, 1e-12);
  plan.prediction.stages.clear();  // and so is one that predicts no ops
  plan.prediction.transfer_seconds = plan.prediction.hop_seconds = 0;
  EXPECT_NEAR(makespan_of(plan.schedule, drawing_costs(plan)), pipeline, 1e-12);
}

}  // namespace
}  // namespace trireme
