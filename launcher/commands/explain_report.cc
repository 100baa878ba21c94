#include "launcher/commands/explain_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launcher/commands/figures.h"
#include "launcher/commands/report.h"
#include "planner/layout_text.h"

namespace trireme {
namespace {

using Json = nlohmann::ordered_json;

const char* name_of(Standing standing) {
  switch (standing) {
    case Standing::chosen:
      return "chosen";
    case Standing::slower:
      return "slower";
    case Standing::faster:
      return "faster";
    case Standing::does_not_fit:
      return "does not fit";
    case Standing::impossible:
      break;
  }
  return "impossible";
}

// "2.8 s per step, +51 ms (+1.8 %)"
std::string against(const Prediction& other, const Plan& plan) {
  const double step = plan.prediction.step_seconds;
  const double more = other.step_seconds - step;
  return fmt::format("{} per step, {} ({:+.1f} %) against the plan", duration(other.step_seconds),
                     signed_duration(more), 100 * more / step);
}

std::string changes_table(const Explanation& explanation, bool colour) {
  constexpr double kSmallest = 1e-9;
  double most = 0;
  for (const CauseChange& change : explanation.changes) {
    most = std::max(most, std::abs(change.seconds));
  }
  std::string text;
  for (const CauseChange& change : explanation.changes) {
    if (std::abs(change.seconds) < kSmallest) continue;
    text += fmt::format("    {:<21} {:>9} |{}|\n", change.cause, signed_duration(change.seconds),
                        bar(std::abs(change.seconds) / most, 30, colour));
  }
  return text;
}

std::string miss_table(const Explanation& explanation, const Plan& plan, bool colour) {
  constexpr int kBar = 60;
  const Miss& miss = *explanation.miss;
  std::string text =
      paragraph("  closest: ", describe(miss.layout)) +
      fmt::format("  pipeline rank {} needs {} of {}: {} too much\n", miss.pipeline_rank,
                  size(miss.needed.total()), size(miss.device_bytes), size(miss.missing_bytes()));
  for (const auto& [name, bytes] : named_parts(miss.needed)) {
    text += fmt::format("    {:<12} {:>10} |{}|\n", name, size(bytes),
                        bar(bytes / miss.needed.total(), kBar, colour));
  }
  if (explanation.unfit) {
    text += paragraph("  with memory enough: ", against(*explanation.unfit, plan));
  }
  for (const Remedy& remedy : explanation.remedies) {
    text += paragraph("  fits with ", remedy.pins + ": " + against(remedy.best.prediction, plan));
  }
  if (explanation.remedies.empty()) {
    text +=
        "  recompute=full, sequence_parallel=true and optimizer_sharding=1 do not make it fit\n";
  }
  return text;
}

}  // namespace

std::string explanation_table(const std::string& asked, const Explanation& explanation,
                              const Plan& plan, bool colour) {
  std::string text = fmt::format("\nExplain      {}: {}\n", asked, name_of(explanation.standing));
  if (explanation.standing == Standing::impossible) return text + paragraph("  ", explanation.rule);
  if (explanation.standing == Standing::does_not_fit) {
    return text + miss_table(explanation, plan, colour);
  }
  if (explanation.standing == Standing::chosen) return text;
  text += paragraph("  best: ", describe(explanation.best->layout));
  text += fmt::format("  {}\n", against(explanation.best->prediction, plan));
  text += changes_table(explanation, colour);
  if (explanation.standing == Standing::faster) {
    text += "  The plan's own pins exclude it, or it takes a choice that is not made unpinned.\n";
  }
  return text;
}

Json explanation_json(const std::string& asked, const Explanation& explanation) {
  Json json = {{"pins", asked}, {"standing", name_of(explanation.standing)}};
  const auto add = [](Json& to, const Alternative& alternative) {
    to["layout"] = layout_json(alternative.layout);
    to["prediction"] = prediction_json(alternative.prediction);
  };
  if (explanation.best) {
    add(json, *explanation.best);
    json["changes"] = changes_json(explanation.changes);
  }
  if (explanation.miss) {
    const Miss& miss = *explanation.miss;
    json["miss"] = {{"layout", layout_json(miss.layout)},
                    {"pipeline_rank", miss.pipeline_rank},
                    {"missing_bytes", miss.missing_bytes()},
                    {"device_bytes", miss.device_bytes},
                    {"memory", memory_json(miss.needed)}};
    json["remedies"] = Json::array();
    for (const Remedy& remedy : explanation.remedies) {
      Json entry = {{"pins", remedy.pins}};
      add(entry, remedy.best);
      json["remedies"].push_back(entry);
    }
  }
  if (explanation.unfit) json["step_seconds_if_it_fitted"] = explanation.unfit->step_seconds;
  if (!explanation.rule.empty()) json["rule"] = explanation.rule;
  return json;
}

}  // namespace trireme
