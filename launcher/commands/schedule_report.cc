#include "launcher/commands/schedule_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
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

Json refused_json(const JudgedSchedule& judged) {
  Json json = {{"legal", false}, {"name", judged.name}, {"reason", judged.reason()}};
  if (judged.verdict.first_wrong) {
    json["first_wrong"] = {{"rank", judged.verdict.first_wrong->rank},
                           {"position", judged.verdict.first_wrong->position}};
  }
  if (judged.refusal.empty()) json["grid"] = judged.verdict.grid;
  return json;
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
               {"micro_batches", schedule.micro_batches},
               {"digest", digest_of(schedule)}};
  if (!judged.over_limit.empty()) json["reason"] = judged.over_limit;
  return json;
}

std::string schedule_table(const JudgedSchedule& judged) {
  const Timeline timeline = timeline_of(judged);
  const Simulation& simulation = judged.simulation;
  const bool colour = stdout_takes_colour();
  std::string text = fmt::format("{}: {}\n\n", timeline.title, timeline.facts);
  text += draw_text(timeline, {.width = stdout_columns(), .colour = colour});
  text += text_legend(colour) + "\n\nrank      idle  activations  tail slack of each chunk\n";
  for (size_t rank = 0; rank < simulation.idle.size(); ++rank) {
    text +=
        fmt::format("{:>4} {:>9.6g} {:>12}  {:.6g}\n", rank, simulation.idle[rank],
                    simulation.peak_activations[rank], fmt::join(simulation.tail_slack[rank], " "));
  }
  return text;
}

std::string comparison_table(const std::vector<JudgedSchedule>& all) {
  std::string text =
      fmt::format("{:<16}  makespan      span    bubble  activations  messages\n", "schedule");
  double axis = 0;
  for (const JudgedSchedule& judged : all) {
    if (!judged.timed()) {
      text += fmt::format("{:<16}  {}\n", judged.name, judged.reason());
      continue;
    }
    const Simulation& simulation = judged.simulation;
    axis = std::max(axis, simulation.makespan);
    text += fmt::format("{:<16} {:>9.6g} {:>9.6g} {:>7.2f} % {:>12.6g} {:>9}{}\n", judged.name,
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
