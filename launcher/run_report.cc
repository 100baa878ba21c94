#include "launcher/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "launcher/progress.h"
#include "planner/plan/run_directory.h"

namespace trireme {
namespace {

// As a word for a shell.
std::string shell_word(const std::string& text) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./+,:@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

using Json = nlohmann::json;

Json measured(double value) {
  return value < 0 ? Json() : Json(value);
}

std::string percent(double fraction) {
  return fraction < 0 ? "not measured" : fmt::format("{:.1f} %", 100 * fraction);
}

// The events between the brackets of a JSON array file; empty when the file is missing or was cut
// short.
std::string array_content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream stream;
  stream << file.rdbuf();
  const std::string text = stream.str();
  const size_t open = text.find_first_not_of(" \t\r\n");
  const size_t close = text.find_last_not_of(" \t\r\n");
  if (open == std::string::npos || open == close || text[open] != '[' || text[close] != ']') {
    return "";
  }
  return text.substr(open + 1, close - open - 1);
}

double gigabytes(double bytes) {
  return bytes / 1e9;
}

// What every rank counted, by pipeline rank; empty when the run did not come to its end.
std::vector<double> counted_bytes(const RunOutcome& outcome) {
  const char* key = "peak_bytes_per_pipeline_rank";
  return outcome.summary.is_object() && outcome.summary.contains(key)
             ? outcome.summary[key].get<std::vector<double>>()
             : std::vector<double>{};
}

std::string memory_line(const RunReport& report) {
  const std::vector<double> counted = counted_bytes(report.outcome);
  if (counted.empty()) {
    return "";
  }
  const auto fullest = std::max_element(counted.begin(), counted.end()) - counted.begin();
  std::string text = fmt::format("  memory      {:.3f} GB counted on the fullest pipeline rank, {}",
                                 gigabytes(counted[static_cast<size_t>(fullest)]), fullest);
  const auto& predicted = report.plan.prediction.memory_bytes_per_pipeline_rank;
  if (predicted.size() == counted.size()) {
    text += fmt::format("; {:.3f} GB predicted with its reserve",
                        gigabytes(predicted[static_cast<size_t>(fullest)]));
  }
  return text + "\n";
}

std::string rehearsal_text(const RunReport& report) {
  const RunTotals& totals = report.totals;
  const Prediction& predicted = report.plan.prediction;
  std::string text =
      fmt::format("{} {} steps of {} on {} emulated {} in {}\n",
                  report.outcome.stopped ? "stopped the rehearsal after" : "rehearsed",
                  totals.steps(), report.plan.job.name, report.plan.layout.ranks(),
                  report.plan.device, short_duration(report.seconds));
  if (totals.steps() > 0) {
    text += fmt::format("  step        {:.4g} s rehearsed, {:.4g} s predicted ({:+.1f} %)\n",
                        totals.step_seconds(), predicted.step_seconds,
                        100 * (totals.step_seconds() / predicted.step_seconds - 1));
    text += fmt::format("  bubble      {} rehearsed, {} predicted\n",
                        percent(totals.bubble_fraction()), percent(predicted.bubble_fraction));
    text += memory_line(report);
    text += fmt::format("  host        too late by {:.2g} s in the worst step\n",
                        totals.slipped_seconds());
  }
  if (!report.trace.empty()) {
    text += fmt::format("  trace       {} (open in ui.perfetto.dev)\n", report.trace);
  }
  return text;
}

}  // namespace

Json to_json(const RunReport& report) {
  const RunTotals& totals = report.totals;
  const Prediction& predicted = report.plan.prediction;
  const RunOutcome& outcome = report.outcome;
  const bool any = totals.steps() > 0 && !report.rehearsal;
  return {{"exit", outcome.exit_code},
          {"stopped", outcome.stopped},
          {"rehearsal", report.rehearsal},
          {"steps", totals.steps()},
          {"seconds", report.seconds},
          {"first_loss", any ? Json(totals.first_loss()) : Json()},
          {"last_loss", any ? Json(totals.last_loss()) : Json()},
          {"tokens_per_second", measured(totals.tokens_per_second())},
          {"predicted_tokens_per_second", predicted.tokens_per_second},
          {"step_seconds", measured(totals.step_seconds())},
          {"predicted_step_seconds", predicted.step_seconds},
          {"bubble_fraction", measured(totals.bubble_fraction())},
          {"predicted_bubble_fraction", predicted.bubble_fraction},
          {"checkpoint", outcome.checkpoint.empty() ? Json() : Json(outcome.checkpoint)},
          {"checkpoint_step", outcome.checkpoint_step},
          {"trace", report.trace.empty() ? Json() : Json(report.trace)},
          {"run_dir", report.run_directory},
          {"predicted_memory_bytes_per_pipeline_rank", predicted.memory_bytes_per_pipeline_rank},
          {"slipped_seconds", measured(totals.slipped_seconds())},
          {"summary", outcome.summary},
          {"failure", outcome.failure ? to_json(*outcome.failure) : Json()}};
}

std::string summary_text(const RunReport& report) {
  if (report.rehearsal) {
    return rehearsal_text(report);
  }
  const RunTotals& totals = report.totals;
  const Prediction& predicted = report.plan.prediction;
  const RunOutcome& outcome = report.outcome;
  std::string text =
      fmt::format("{} {} steps of {} in {}\n", outcome.stopped ? "stopped after" : "trained",
                  totals.steps(), report.plan.job.name, short_duration(report.seconds));
  if (totals.steps() > 0) {
    text +=
        fmt::format("  loss        {:.4f} -> {:.4f}\n", totals.first_loss(), totals.last_loss());
    text += fmt::format("  speed       {:.0f} tokens/s\n", totals.tokens_per_second());
    text += fmt::format("  step        {:.4g} s measured, {:.4g} s predicted\n",
                        totals.step_seconds(), predicted.step_seconds);
    text += fmt::format("  bubble      {} measured, {} predicted\n",
                        percent(totals.bubble_fraction()), percent(predicted.bubble_fraction));
  }
  if (!outcome.checkpoint.empty()) {
    text += fmt::format("  checkpoint  {}\n", outcome.checkpoint);
  }
  if (!report.trace.empty()) {
    text += fmt::format("  trace       {} (open in ui.perfetto.dev)\n", report.trace);
  }
  if (outcome.stopped && outcome.checkpoint.empty()) {
    text += "no checkpoint was written\n";
  } else if (outcome.stopped) {
    text += fmt::format("to go on: trireme run {} --resume {}\n",
                        shell_word(RunDirectory{report.run_directory}.plan()),
                        shell_word(report.run_directory));
  }
  return text;
}

std::string merge_traces(const std::string& run_directory, int ranks) {
  const RunDirectory directory{run_directory};
  std::string merged;
  for (int r = 0; r < ranks; ++r) {
    const std::string events = array_content(directory.rank_trace(Rank(r)));
    merged += merged.empty() || events.empty() ? events : ",\n" + events;
  }
  if (merged.empty()) {
    return "";
  }
  std::ofstream file(directory.merged_trace(), std::ios::binary);
  file << "[" << merged << "]\n";
  file.close();
  return file ? directory.merged_trace() : "";
}

}  // namespace trireme
