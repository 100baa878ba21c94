#include "launcher/commands/show.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands/common.h"
#include "launcher/commands/report.h"
#include "launcher/commands/terminal.h"
#include "planner/checker.h"
#include "planner/drawing/chrome_trace.h"
#include "planner/drawing/plan_costs.h"
#include "planner/drawing/svg.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

struct ShowCommand {
  std::string plan, html, svg, trace;
  bool json = false;
};

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

std::string html_page(const Plan& plan, const std::string& svg) {
  const std::string title = escape_html(plan.job.name + " on " + plan.cluster);
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
      "<style>body{{font-family:sans-serif;margin:2em}}pre{{background:#f4f4f4;padding:1em}}</"
      "style>\n"
      "</head><body>\n<h1>{0}</h1>\n<div style=\"overflow-x:auto\">{1}</div>\n<pre>{2}</pre>\n"
      "</body></html>\n",
      title, svg, escape_html(plan_table(plan)));
}

void run(const ShowCommand& command) {
  const Plan plan = read_plan(command.plan);
  const Verdict verdict = check_schedule(plan.schedule);
  if (!verdict.legal) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: the schedule cannot run: {}", command.plan, verdict.reason));
  }
  const bool draws = !command.html.empty() || !command.svg.empty() || !command.trace.empty();
  if (command.json) {
    fmt::print("{}\n", plan_json(plan).dump(2));
  } else if (!draws) {
    fmt::print("{}", plan_table(plan, nullptr, stdout_takes_colour()));
  }
  if (!draws) return;
  const Simulation simulation = simulate(plan.schedule, drawing_costs(plan));
  Timeline timeline = timeline_of(plan.schedule, simulation);
  timeline.title = fmt::format("{} on {}: predicted timeline of {}", plan.job.name, plan.cluster,
                               plan.schedule.name);
  timeline.facts = fmt::format("pipeline {:.4g} s, bubble {:.1f} %", simulation.makespan,
                               100 * simulation.bubble_fraction);
  if (!command.svg.empty()) write_text_file(command.svg, draw_svg({timeline}, "s"));
  if (!command.html.empty()) {
    write_text_file(command.html, html_page(plan, draw_svg({timeline}, "s")));
  }
  if (!command.trace.empty()) write_text_file(command.trace, draw_chrome_trace(timeline));
}

}  // namespace

void add_show_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<ShowCommand>();
  CLI::App* sub = app.add_subcommand("show", "placement and predicted timeline of a plan");
  sub->add_option("PLAN", command->plan, "plan file")->required();
  sub->add_option("--html", command->html, "write a self-contained page");
  sub->add_option("--svg", command->svg, "write the timeline as SVG");
  sub->add_option("--trace", command->trace, "write the timeline in Chrome's trace format");
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer("Example: trireme show plan.toml --html plan.html");
  sub->callback([command, &exit_status] {
    run(*command);
    exit_status = 0;
  });
}

}  // namespace trireme
