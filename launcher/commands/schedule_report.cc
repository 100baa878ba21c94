#include "launcher/commands/schedule_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "launcher/commands/terminal.h"
#include "planner/drawing/text.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

using Json = nlohmann::ordered_json;

// SHA-256 of the CSV, as sha256sum prints it: equal digests, equal schedules.
std::string digest_of(const Schedule& schedule) {
  const std::string csv = to_csv(schedule);
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes = {};
  unsigned int size = 0;
  TRIREME_CHECK(EVP_Digest(csv.data(), csv.size(), bytes.data(), &size, EVP_sha256(), nullptr) ==
                1);
  return fmt::format("sha256:{:02x}", fmt::join(bytes.begin(), bytes.begin() + size, ""));
}

constexpr size_t kMostMissing = 1000;

Json causes_json(const std::vector<IdleCauses>& ranks) {
  Json json = Json::array();
  for (const IdleCauses& causes : ranks) {
    json.push_back({{"fill", causes.fill},
                    {"dependency", causes.dependency},
                    {"message", causes.message},
                    {"imbalance", causes.imbalance},
                    {"drain", causes.drain}});
  }
  return json;
}

Json refused_json(const JudgedSchedule& judged) {
  Json json = {{"legal", false}, {"name", judged.name}, {"reason", judged.reason()}};
  if (judged.verdict.first_wrong) {
    json["first_wrong"] = {{"rank", judged.verdict.first_wrong->rank},
                           {"position", judged.verdict.first_wrong->position}};
  }
  if (!judged.refusal.empty()) return json;
  json["grid"] = judged.verdict.grid;
  json["missing"] = Json::array();
  for (const Op& op : missing_ops(judged.schedule, kMostMissing)) {
    json["missing"].push_back(to_string(op));
  }
  return json;
}

// Idle time of each rank by cause, what it holds, and the tail slack of its chunks.
std::string ranks_table(const Simulation& simulation) {
  std::string text =
      "rank      idle =    fill + dependency + message + imbalance +   drain    memory  tail "
      "slack\n";
  for (size_t rank = 0; rank < simulation.idle.size(); ++rank) {
    const IdleCauses& causes = simulation.idle_by_cause[rank];
    text += fmt::format(
        "{:>4} {:>9.5g}   {:>7.5g}   {:>10.5g}   {:>7.5g}   {:>9.5g}   {:>7.5g} "
        "{:>9.5g}  {:.5g}\n",
        rank, simulation.idle[rank], causes.fill, causes.dependency, causes.message,
        causes.imbalance, causes.drain, simulation.peak_memory[rank],
        fmt::join(simulation.tail_slack[rank], " "));
  }
  return text;
}

// Where a chosen schedule comes from, and what it was chosen among.
Json choice_json(const AutoChoice& choice) {
  Json considered = Json::array();
  for (const Considered& one : choice.considered) {
    Json json = {{"name", one.name()}};
    if (one.makespan) {
      json["makespan"] = *one.makespan;
    } else {
      json["why_not"] = one.why_not;
    }
    considered.push_back(std::move(json));
  }
  return {{"origin", choice.origin},
          {"lower_bound", choice.lower_bound},
          {"gap", choice.gap()},
          {"considered", considered}};
}

double time_of(const Considered& one) {
  return one.makespan.value_or(std::numeric_limits<double>::infinity());
}

// A line for each schedule that was considered, in its best variant, the best first.
std::string considered_table(const std::vector<Considered>& considered) {
  std::vector<const Considered*> lines;
  for (const Considered& one : considered) {
    const auto known = std::find_if(lines.begin(), lines.end(), [&](const Considered* line) {
      return line->schedule == one.schedule;
    });
    if (known == lines.end()) {
      lines.push_back(&one);
    } else if (time_of(one) < time_of(**known)) {
      *known = &one;
    }
  }
  std::stable_sort(lines.begin(), lines.end(), [](const Considered* a, const Considered* b) {
    return time_of(*a) < time_of(*b);
  });
  std::string text = "considered                                 makespan\n";
  for (const Considered* line : lines) {
    text += line->makespan ? fmt::format("{:<40} {:>10.6g}\n", line->name(), *line->makespan)
                           : fmt::format("{:<40}          -  {}\n", line->name(), line->why_not);
  }
  return text;
}

std::string choice_table(const AutoChoice& choice) {
  const std::string quality =
      choice.gap() > 0
          ? fmt::format("this one ends at most {:.2f} % later than the best", 100 * choice.gap())
          : "none is better";
  return fmt::format("{}\nno schedule within the limit ends before {:.6g}: {}\n\n{}", choice.origin,
                     choice.lower_bound, quality, considered_table(choice.considered));
}

}  // namespace

Json schedule_json(const JudgedSchedule& judged) {
  if (!judged.timed()) return refused_json(judged);
  const Schedule& schedule = judged.schedule;
  const Simulation& simulation = judged.simulation;
  Json stages = Json::array();
  for (const StagePlace& place : schedule.stages) stages.push_back({place.rank, place.chunk});
  Json json = {{"legal", judged.legal()},
               {"makespan", simulation.makespan},
               {"span", simulation.span},
               {"bubble_fraction", simulation.bubble_fraction},
               {"idle", simulation.idle},
               {"peak_activations", simulation.peak_activations},
               {"tail_slack", simulation.tail_slack},
               {"messages", simulation.messages},
               {"stages", stages},
               {"name", judged.name},
               {"asynchronous", schedule.asynchronous},
               {"idle_by_cause", causes_json(simulation.idle_by_cause)},
               {"peak_memory", simulation.peak_memory},
               {"micro_batches", schedule.micro_batches},
               {"digest", digest_of(schedule)}};
  if (judged.choice) json.update(choice_json(*judged.choice));
  if (!judged.over_limit.empty()) json["reason"] = judged.over_limit;
  return json;
}

std::string schedule_table(const JudgedSchedule& judged) {
  const Timeline timeline = timeline_of(judged);
  const bool colour = stdout_takes_colour();
  std::string text = fmt::format("{}: {}\n\n", timeline.title, timeline.facts);
  text += draw_text(timeline, {.width = stdout_columns(), .colour = colour});
  text += text_legend(colour) + "\n\n" + ranks_table(judged.simulation);
  return judged.choice ? text + "\n" + choice_table(*judged.choice) : text;
}

std::string missing_table(const Schedule& schedule) {
  const std::vector<Op> missing = missing_ops(schedule, kMostMissing);
  if (missing.empty()) return "nothing is missing\n";
  std::vector<std::vector<std::string>> by_rank(schedule.ranks.size());
  for (const Op& op : missing) {
    const int rank = schedule.stages[static_cast<size_t>(op.stage)].rank;
    by_rank[static_cast<size_t>(rank)].push_back(to_string(op));
  }
  std::string text;
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    if (by_rank[rank].empty()) continue;
    text += fmt::format("rank {:>3} lacks {}\n", rank, fmt::join(by_rank[rank], " "));
  }
  return missing.size() == kMostMissing ? text + "and perhaps more\n" : text;
}

std::string comparison_table(const std::vector<JudgedSchedule>& all) {
  std::string text =
      fmt::format("{:<16}  makespan      span    bubble    memory  messages\n", "schedule");
  double axis = 0;
  for (const JudgedSchedule& judged : all) {
    if (!judged.timed()) {
      text += fmt::format("{:<16}  {}\n", judged.name, judged.reason());
      continue;
    }
    const Simulation& simulation = judged.simulation;
    axis = std::max(axis, simulation.makespan);
    text += fmt::format("{:<16} {:>9.6g} {:>9.6g} {:>7.2f} % {:>9.6g} {:>9}{}\n", judged.name,
                        simulation.makespan, simulation.span, 100 * simulation.bubble_fraction,
                        peak_of(judged), simulation.messages,
                        judged.legal() ? "" : "  " + judged.over_limit);
  }
  const bool colour = stdout_takes_colour();
  for (const JudgedSchedule& judged : all) {
    if (!judged.timed()) continue;
    text += fmt::format("\n{}\n", judged.name);
    text +=
        draw_text(timeline_of(judged), {.width = stdout_columns(), .colour = colour, .axis = axis});
  }
  return text + text_legend(colour) + "\n";
}

}  // namespace trireme
