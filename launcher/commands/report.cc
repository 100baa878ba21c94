#include "launcher/commands/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "planner/drawing/plan_costs.h"
#include "planner/drawing/text.h"
#include "topology/hostlist.h"

namespace trireme {
namespace {

using Json = nlohmann::ordered_json;

Json layout_json(const Layout& layout) {
  return {{"tensor", layout.tensor},
          {"pipeline", layout.pipeline},
          {"data", layout.data},
          {"chunks", layout.chunks},
          {"schedule", layout.schedule},
          {"micro_batch", layout.micro_batch},
          {"micro_batches", layout.micro_batches},
          {"sequence_parallel", layout.sequence_parallel},
          {"recompute", name_of(layout.recompute)},
          {"optimizer_sharding", layout.optimizer_sharding}};
}

Json prediction_json(const Prediction& prediction) {
  Json breakdown = Json::object();
  for (const auto& [cause, seconds] : prediction.breakdown) breakdown[cause] = seconds;
  return {{"step_seconds", prediction.step_seconds},
          {"tokens_per_second", prediction.tokens_per_second},
          {"model_tflops_per_device", prediction.model_tflops_per_device},
          {"hardware_tflops_per_device", prediction.hardware_tflops_per_device},
          {"mfu", prediction.mfu},
          {"bubble_fraction", prediction.bubble_fraction},
          {"memory_bytes_per_pipeline_rank", prediction.memory_bytes_per_pipeline_rank},
          {"breakdown", breakdown}};
}

std::string duration(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3g} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} us", seconds * 1e6);
}

std::string size(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  return fmt::format("{:.1f} MB", bytes / 1e6);
}

std::string bar(double share, int width) {
  const int filled = std::clamp(static_cast<int>(std::lround(share * width)), 0, width);
  return std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(width - filled), ' ');
}

// A list of things that may be long: the first few, then how many more.
constexpr size_t kMostLines = 16;

std::string more(size_t count) {
  return count > kMostLines ? fmt::format("  ... and {} more\n", count - kMostLines) : "";
}

std::string layout_table(const Plan& plan) {
  const Layout& layout = plan.layout;
  std::string text = fmt::format("{} on {} ({} x {})\n\n", plan.job.name, plan.cluster,
                                 layout.ranks(), plan.device);
  text += fmt::format(
      "Layout       tensor {} x pipeline {} x data {} = {} ranks, {} chunk{} per rank\n",
      layout.tensor, layout.pipeline, layout.data, layout.ranks(), layout.chunks,
      layout.chunks == 1 ? "" : "s");
  text += fmt::format("Schedule     {}, {} micro-batch{} of {} sample{}\n", layout.schedule,
                      layout.micro_batches, layout.micro_batches == 1 ? "" : "es",
                      layout.micro_batch, layout.micro_batch == 1 ? "" : "s");
  text += fmt::format("Options      recompute {}, sequence parallel {}, optimizer sharding {}\n",
                      name_of(layout.recompute), layout.sequence_parallel ? "on" : "off",
                      layout.optimizer_sharding);
  const Prediction& p = plan.prediction;
  text += fmt::format("Prediction   {} per step, {:.4g} tokens/s, bubble {:.1f} %\n",
                      duration(p.step_seconds), p.tokens_per_second, 100 * p.bubble_fraction);
  text += fmt::format(
      "             {:.3g} model TFLOP/s per device ({:.3g} with recomputation), MFU {:.1f} %\n",
      p.model_tflops_per_device, p.hardware_tflops_per_device, 100 * p.mfu);
  return text;
}

std::string placement_table(const Plan& plan) {
  std::string text = "\nPlacement    rank = t + tensor * (d + data * p)\n";
  const int block = plan.layout.tensor * plan.layout.data;
  for (int p = 0; p < plan.layout.pipeline; ++p) {
    if (static_cast<size_t>(p) == kMostLines) break;
    std::vector<std::string> hosts;
    for (int rank = block * p; rank < block * (p + 1); ++rank) {
      const std::string& host = plan.placement[static_cast<size_t>(rank)].node;
      if (hosts.empty() || hosts.back() != host) hosts.push_back(host);
    }
    const PlacedRank& first = plan.placement[static_cast<size_t>(block) * static_cast<size_t>(p)];
    const PlacedRank& last =
        plan.placement[static_cast<size_t>(block) * static_cast<size_t>(p + 1) - 1];
    text +=
        fmt::format("  pipeline {:>3}   ranks {:>5}-{:<5}  {} (device {} to {})\n", p, block * p,
                    block * (p + 1) - 1, compress_hosts(hosts), first.device, last.device);
  }
  return text + more(static_cast<size_t>(plan.layout.pipeline));
}

std::string layers_of(const Stage& stage) {
  std::string text = stage.embedding ? "emb+" : "";
  text += stage.layers == 0
              ? ""
              : fmt::format("{}-{}", stage.first_layer, stage.first_layer + stage.layers - 1);
  if (stage.head) text += "+head";
  return text;
}

std::string stage_table(const Plan& plan) {
  const std::vector<double>& memory = plan.prediction.memory_bytes_per_pipeline_rank;
  const double most = memory.empty() ? 0 : *std::max_element(memory.begin(), memory.end());
  std::string text = "\nStages       memory per device           layers of each chunk\n";
  for (int p = 0; p < plan.layout.pipeline && static_cast<size_t>(p) < kMostLines; ++p) {
    std::string layers;
    for (const Stage& stage : plan.stages) {
      if (stage.pipeline_rank != p) continue;
      if (layers.size() > 40) {
        layers += ", ...";
        break;
      }
      layers += (layers.empty() ? "" : ", ") + layers_of(stage);
    }
    const double bytes =
        static_cast<size_t>(p) < memory.size() ? memory[static_cast<size_t>(p)] : 0;
    text += fmt::format("  pipeline {:>3}  {:>9} |{}| {}\n", p, size(bytes),
                        bar(most > 0 ? bytes / most : 0, 12), layers);
  }
  return text + more(static_cast<size_t>(plan.layout.pipeline));
}

std::string timeline_table(const Plan& plan) {
  constexpr int kMostRanks = 16;
  if (plan.layout.pipeline > kMostRanks) return "";
  const Simulation simulation = simulate(plan.schedule, drawing_costs(plan));
  return fmt::format("\nTimeline     {}\n", text_legend(false)) +
         draw_text(timeline_of(plan.schedule, simulation), {});
}

std::string breakdown_table(const Prediction& prediction) {
  std::string text = "\nStep         of the busiest pipeline rank\n";
  for (const auto& [cause, seconds] : prediction.breakdown) {
    const double share = prediction.step_seconds > 0 ? seconds / prediction.step_seconds : 0;
    text += fmt::format("  {:<21} {:>9} {:>5.1f} % |{}|\n", cause, duration(seconds), 100 * share,
                        bar(share, 40));
  }
  return text;
}

std::string alternatives_table(const std::vector<Alternative>& alternatives) {
  if (alternatives.empty()) return "";
  std::string text =
      "\nNext best\n  step        tensor pipeline data chunks micro-batch schedule     bubble  "
      "memory\n";
  for (const Alternative& other : alternatives) {
    const std::vector<double>& memory = other.prediction.memory_bytes_per_pipeline_rank;
    text += fmt::format("  {:<11} {:>6} {:>8} {:>4} {:>6} {:>11} {:<12} {:>4.1f} %  {}\n",
                        duration(other.prediction.step_seconds), other.layout.tensor,
                        other.layout.pipeline, other.layout.data, other.layout.chunks,
                        other.layout.micro_batch, other.layout.schedule,
                        100 * other.prediction.bubble_fraction,
                        size(*std::max_element(memory.begin(), memory.end())));
  }
  return text;
}

}  // namespace

Json plan_json(const Plan& plan) {
  Json stages = Json::array(), placement = Json::array();
  for (const Stage& stage : plan.stages) {
    stages.push_back({{"pipeline_rank", stage.pipeline_rank},
                      {"chunk", stage.chunk},
                      {"first_layer", stage.first_layer},
                      {"layers", stage.layers},
                      {"embedding", stage.embedding},
                      {"head", stage.head}});
  }
  for (size_t rank = 0; rank < plan.placement.size(); ++rank) {
    const Coordinates at = coordinates_of(plan.layout, Rank(static_cast<int>(rank)));
    placement.push_back({{"rank", rank},
                         {"node", plan.placement[rank].node},
                         {"device", plan.placement[rank].device},
                         {"tensor", at.tensor},
                         {"pipeline", at.pipeline},
                         {"data", at.data}});
  }
  return {{"job", plan.job.name},  {"cluster", plan.cluster},
          {"device", plan.device}, {"layout", layout_json(plan.layout)},
          {"stages", stages},      {"prediction", prediction_json(plan.prediction)},
          {"placement", placement}};
}

Json result_json(const PlanResult& result) {
  Json json = plan_json(result.plan);
  json["search"] = {{"considered", result.considered},
                    {"evaluated", result.evaluated},
                    {"seconds", result.seconds}};
  json["alternatives"] = Json::array();
  for (const Alternative& other : result.alternatives) {
    json["alternatives"].push_back(
        {{"layout", layout_json(other.layout)}, {"prediction", prediction_json(other.prediction)}});
  }
  json["notes"] = result.notes;
  if (!result.rejections.empty()) {
    Json rejections = Json::array();
    for (const Rejection& r : result.rejections) {
      rejections.push_back({{"layout", r.layout}, {"reason", r.reason}});
    }
    json["rejections"] = rejections;
  }
  return json;
}

std::string plan_table(const Plan& plan) {
  return layout_table(plan) + placement_table(plan) + stage_table(plan) + timeline_table(plan) +
         breakdown_table(plan.prediction);
}

std::string result_table(const PlanResult& result) {
  std::string text = plan_table(result.plan) + alternatives_table(result.alternatives);
  text += fmt::format("\nSearch       {} layouts considered, {} simulated, {}\n", result.considered,
                      result.evaluated, duration(result.seconds));
  for (const std::string& note : result.notes) text += "Note         " + note + "\n";
  if (!result.rejections.empty()) text += "\nRejected\n";
  for (const Rejection& rejection : result.rejections) {
    text += fmt::format("  {}\n    {}\n", rejection.layout, rejection.reason);
  }
  return text;
}

}  // namespace trireme
