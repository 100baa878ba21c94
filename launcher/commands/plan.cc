#include "launcher/commands/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "launcher/commands/common.h"
#include "launcher/commands/explain_report.h"
#include "launcher/commands/figures.h"
#include "launcher/commands/replan.h"
#include "launcher/commands/report.h"
#include "launcher/commands/terminal.h"
#include "planner/assumptions.h"
#include "planner/improve.h"
#include "topology/base/error.h"
#include "topology/base/say.h"

namespace trireme {
namespace {

using Json = nlohmann::ordered_json;

struct PlanCommand {
  PlanningInput input;
  std::vector<std::string> explain;
  std::vector<std::string> what_if;
  std::string sweep, svg;
  std::optional<double> price;
  std::string output;
  int top = 5;
  bool json = false;
  bool rejected = false;
  bool improve = false;
};

// The cluster with the changes of one question; complaints about them name the question.
Cluster changed_cluster(const PlanCommand& command, const std::string& question,
                        const std::vector<std::string>& changes) {
  Cluster cluster;
  try {
    cluster = load_cluster(command.input.cluster, changes);
  } catch (const Error& error) {
    throw Error(error.kind(), question.empty() ? std::string(error.what())
                                               : fmt::format("{}: {}", question, error.what()));
  }
  for (NodeGroup& group : cluster.groups) {
    group.price_per_device_hour = command.price.value_or(group.price_per_device_hour);
  }
  return cluster;
}

// "nic_gbps=800,latency_us=2", each key once.
std::vector<std::string> changes_of(const std::string& question) {
  std::vector<std::string> changes = CLI::detail::split(question, ',');
  std::set<std::string> keys;
  for (const std::string& change : changes) {
    const std::string key = change.substr(0, change.find('='));
    if (keys.insert(key).second) continue;
    throw Error(ErrorKind::bad_input,
                fmt::format("--what-if {}: found {} twice, expected each key once", question, key));
  }
  return changes;
}

// A price for all, and another as the question.
void refuse_two_prices(const PlanCommand& command, const std::string& change) {
  if (!command.price || change.substr(0, change.find('=')) != "price_per_device_hour") return;
  throw Error(ErrorKind::bad_input,
              "--price contradicts a question about price_per_device_hour; expected one of both");
}

// Whatever was asked, an answer without any plan ends like a plan that does not exist.
void require_a_plan(const std::vector<Replan>& plans) {
  for (const Replan& replan : plans) {
    if (replan.plan() != nullptr) return;
  }
  throw Error(ErrorKind::no_layout, "no layout fits in any of these cases");
}

void print(const PlanCommand& command, const Json& json, const std::string& text) {
  fmt::print("{}", command.json ? json.dump(2) + "\n" : text);
}

// The job's pins with those of one --explain on top: "tensor=4,pipeline=2".
Pins pins_to_explain(const Job& job, const std::string& asked) {
  Pins pins = job.pins;
  try {
    set_pins(pins, CLI::detail::split(asked, ','));
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("--explain {}: {}", asked, error.what()));
  }
  return pins;
}

// A schedule that is given is no other one.
void refuse_to_improve_what_is_given(const PlanCommand& command, const Job& job) {
  if (!command.improve) return;
  const std::string given =
      !command.input.schedule_file.empty() ? "--schedule-file " + command.input.schedule_file
      : job.pins.schedule                  ? name_of_pin(job.pins, "schedule", *job.pins.schedule)
                                           : "";
  if (given.empty()) return;
  throw Error(ErrorKind::bad_input,
              fmt::format("--improve-schedule contradicts {}: expected one of them", given));
}

// Without a plan, what was turned down is the answer.
PlanResult plan_or_rejections(const PlanCommand& command, const Job& job, const Cluster& cluster,
                              const PlanOptions& options) {
  auto answer = try_plan(job, cluster, options);
  if (const auto* none = std::get_if<NoPlan>(&answer)) {
    if (command.rejected) {
      Json json = Json::object();
      add_rejections(none->rejections, json);
      print(command, json, rejections_table(none->rejections));
    }
    throw Error(ErrorKind::no_layout, none->reason);
  }
  return std::get<PlanResult>(std::move(answer));
}

void run_plan(const PlanCommand& command, const Job& job, const Cluster& cluster) {
  refuse_to_improve_what_is_given(command, job);
  std::vector<Pins> questions;
  for (const std::string& asked : command.explain) questions.push_back(pins_to_explain(job, asked));
  const PlanOptions options = planning_options(command.input, job, command.top, command.rejected);
  PlanResult result = plan_or_rejections(command, job, cluster, options);
  if (command.improve) result = improve_schedule(job, cluster, options, std::move(result));
  const bool colour = stdout_takes_colour();
  std::string text = command.json ? "" : result_table(result, cluster, colour);
  Json json = command.json ? result_json(result, cluster) : Json();
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::string& asked = command.explain[i];
    const Explanation answer = explain(job, cluster, result, questions[i], options.profile);
    if (command.json) {
      json["explanations"].push_back(explanation_json(asked, answer));
    } else {
      text += explanation_table(asked, answer, result.plan, colour);
    }
  }
  print(command, json, text);
  if (!command.output.empty()) {
    write_text_file(command.output, to_toml(result.plan));
    say(stderr, "plan written to {}\n", command.output);
  }
}

Replan replan(const PlanCommand& command, const Job& job, const std::string& name,
              Cluster cluster) {
  auto answer = try_plan(job, cluster, planning_options(command.input, job, 1, false));
  return {name, std::move(cluster), std::move(answer)};
}

// On other hardware the program stays what it is. That is worth a word where another would be
// assumed of the devices of some plan.
std::string same_program_note(const Job& job, const std::vector<Replan>& plans) {
  const auto differs = [&](const Replan& replan) {
    return execution_of(job, replan.cluster) != execution_of(job, plans.front().cluster);
  };
  if (std::none_of(plans.begin(), plans.end(), differs)) return "";
  return "All are of one program, that which is assumed where nothing is changed; [execution] in "
         "the "
         "job says otherwise.";
}

Job of_one_program(Job job, const Cluster& cluster) {
  job.execution = with_assumptions(job, cluster).execution;
  return job;
}

void print_replans(const PlanCommand& command, Json json, std::string text,
                   const std::string& note) {
  if (!note.empty()) {
    json["notes"] = {note};
    text += "\n" + paragraph("Note  ", note);
  }
  print(command, json, text);
}

void run_what_if(const PlanCommand& command, const Job& job, const Cluster& cluster) {
  std::vector<Cluster> clusters;
  for (const std::string& question : command.what_if) {
    const std::vector<std::string> changes = changes_of(question);
    for (const std::string& change : changes) refuse_two_prices(command, change);
    clusters.push_back(changed_cluster(command, "--what-if " + question, changes));
  }
  const Job same = of_one_program(job, cluster);
  std::vector<Replan> plans = {replan(command, same, "as it is", cluster)};
  for (size_t i = 0; i < clusters.size(); ++i) {
    plans.push_back(replan(command, same, command.what_if[i], std::move(clusters[i])));
  }
  print_replans(command, {{"what_if", replans_json(plans)}}, what_if_table(plans),
                same_program_note(job, plans));
  require_a_plan(plans);
}

void run_sweep(const PlanCommand& command, const Job& job) {
  const Sweep sweep = parse_sweep(command.sweep);
  refuse_two_prices(command, sweep.key);
  const auto cluster_of = [&](const std::string& value) {
    const std::string change = sweep.key + "=" + value;
    return changed_cluster(command, "--sweep " + change, {change});
  };
  // Complaints come before anything is planned.
  for (const std::string& value : sweep.values) cluster_of(value);
  std::vector<Replan> plans;
  const Job same = of_one_program(job, changed_cluster(command, "", {}));
  for (const std::string& value : sweep.values) {
    plans.push_back(replan(command, same, value, cluster_of(value)));
  }
  print_replans(command, {{"sweep", {{"key", sweep.key}, {"points", replans_json(plans)}}}},
                sweep_table(sweep, plans), same_program_note(job, plans));
  if (!command.svg.empty()) write_text_file(command.svg, sweep_svg(sweep, plans));
  require_a_plan(plans);
}

void run(const PlanCommand& command) {
  const Job job = load_job(command.input.job, command.input.pins);
  if (!command.sweep.empty()) return run_sweep(command, job);
  const Cluster cluster = changed_cluster(command, "", {});
  if (!command.what_if.empty()) return run_what_if(command, job, cluster);
  run_plan(command, job, cluster);
}

void add_questions(CLI::App& sub, PlanCommand& command) {
  auto* explain =
      sub.add_option("--explain", command.explain,
                     "why the layouts with these pins lost, as in tensor=4,pipeline=2; repeatable")
          ->allow_extra_args(false);
  auto* what_if =
      sub.add_option("--what-if", command.what_if,
                     "plan for a changed cluster too, side by side, as in\n"
                     "nic_gbps=800,latency_us=2; keys as in the cluster file; repeatable")
          ->allow_extra_args(false)
          ->excludes(explain);
  auto* sweep = sub.add_option("--sweep", command.sweep,
                               "a line for each value of a cluster's key, as in nodes=8..128\n"
                               "(doubling) or device=A100-SXM4-80GB,H100-SXM-80GB")
                    ->excludes(explain)
                    ->excludes(what_if);
  sub.add_option("--svg", command.svg, "plot the sweep into this file")->needs(sweep);
  sub.add_option("--price", command.price, "of a device-hour, for the cost of a million tokens")
      ->check(CLI::Range(0.0, 1e6))
      ->check([](const std::string& text) {  // which is in no range, but not out of it either
        return std::isnan(std::strtod(text.c_str(), nullptr)) ? "found nan, expected a number" : "";
      });
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<PlanCommand>();
  CLI::App* sub = app.add_subcommand("plan", "find the fastest layout that fits; starts nothing");
  add_planning_options(*sub, command->input);
  add_questions(*sub, *command);
  sub->add_option("-o,--output", command->output, "write the plan file here")
      ->excludes("--sweep")
      ->excludes("--what-if");
  sub->add_option("--top", command->top, "how many layouts to report")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->excludes("--sweep")
      ->excludes("--what-if");
  sub->add_flag("--rejected", command->rejected, "list the layouts that were turned down, and why")
      ->excludes("--sweep")
      ->excludes("--what-if");
  sub->add_flag("--improve-schedule", command->improve,
                "then search on for an order of its ops that is faster than any built schedule")
      ->excludes("--sweep")
      ->excludes("--what-if");
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer(
      "Examples:\n"
      "  trireme plan job.toml --cluster cluster.toml -o plan.toml --pin tensor=2\n"
      "  trireme plan job.toml --cluster cluster.toml --explain tensor=8 --explain pipeline=1\n"
      "  trireme plan job.toml --cluster cluster.toml --what-if nic_gbps=800 --price 2.5\n"
      "  trireme plan job.toml --cluster cluster.toml --sweep nodes=8..128 --svg nodes.svg");
  sub->callback([command, &exit_status] {
    run(*command);
    exit_status = 0;
  });
}

}  // namespace trireme
