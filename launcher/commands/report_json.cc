#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launcher/commands/report.h"
#include "planner/cost/accuracy.h"
#include "planner/summary.h"

namespace trireme {

using Json = nlohmann::ordered_json;

Json layout_json(const Layout& layout) {
  Json json = {{"tensor", layout.tensor},
               {"pipeline", layout.pipeline},
               {"data", layout.data},
               {"chunks", layout.chunks},
               {"schedule", layout.schedule},
               {"micro_batch", layout.micro_batch},
               {"micro_batches", layout.micro_batches},
               {"sequence_parallel", layout.sequence_parallel},
               {"recompute", name_of(layout.recompute)},
               {"optimizer_sharding", layout.optimizer_sharding}};
  if (layout.recompute_ranks > 0) json["recompute_ranks"] = layout.recompute_ranks;
  for (const Share& share : layout.shares) {
    json["shares"].push_back(
        {{"replicas", share.replicas}, {"micro_batches", share.micro_batches}});
  }
  return json;
}

Json prediction_json(const Prediction& prediction) {
  Json breakdown = Json::object();
  for (const auto& [cause, seconds] : prediction.breakdown) breakdown[cause] = seconds;
  Json traffic = Json::object();
  for (const AxisTraffic& axis : prediction.traffic) {
    traffic[axis.axis] = {{"bytes", axis.bytes}, {"seconds", axis.seconds}};
  }
  Json links = Json::array();
  for (const LinkTraffic& link : prediction.links) {
    links.push_back({{"link", link.link},
                     {"where", link.where},
                     {"bytes", link.bytes},
                     {"seconds", link.seconds}});
  }
  Json json = {{"step_seconds", prediction.step_seconds},
               {"tokens_per_second", prediction.tokens_per_second},
               {"model_tflops_per_device", prediction.model_tflops_per_device},
               {"hardware_tflops_per_device", prediction.hardware_tflops_per_device},
               {"mfu", prediction.mfu},
               {"bubble_fraction", prediction.bubble_fraction},
               {"memory_bytes_per_pipeline_rank", prediction.memory_bytes_per_pipeline_rank},
               {"traffic", traffic},
               {"links", links},
               {"breakdown", breakdown}};
  const std::vector<double>& peaks = prediction.peak_seconds_per_pipeline_rank;
  if (!peaks.empty()) json["peak_seconds_per_pipeline_rank"] = peaks;
  return json;
}

Json memory_json(const MemoryParts& parts) {
  Json json = Json::object();
  for (const auto& [name, bytes] : named_parts(parts)) json[name] = bytes;
  return json;
}

Json changes_json(const std::vector<CauseChange>& changes) {
  Json json = Json::object();
  for (const CauseChange& change : changes) json[change.cause] = change.seconds;
  return json;
}

Json plan_json(const Plan& plan) {
  Json stages = Json::array(), placement = Json::array();
  for (const Stage& stage : plan.stages) {
    stages.push_back({{"pipeline_rank", stage.pipeline_rank},
                      {"chunk", stage.chunk},
                      {"first_layer", stage.first_layer},
                      {"layers", stage.layers},
                      {"embedding", stage.embedding},
                      {"head", stage.head},
                      {"recompute", name_of(plan.layout.recompute_on(stage.pipeline_rank))}});
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
  const Accuracy accuracy = accuracy_of(plan);
  const Json ground = {
      {"band", accuracy.band}, {"runs", accuracy.runs}, {"doubts", accuracy.doubts}};
  return {{"job", plan.job.name},   {"cluster", plan.cluster},
          {"device", plan.device},  {"layout", layout_json(plan.layout)},
          {"stages", stages},       {"prediction", prediction_json(plan.prediction)},
          {"placement", placement}, {"accuracy", ground}};
}

namespace {

Json placement_json(const Plan& plan, const Cluster& cluster) {
  Json spans = Json::array();
  for (const AxisSpan& span : axis_spans(plan, cluster)) {
    spans.push_back({{"axis", span.axis},
                     {"ranks", span.ranks},
                     {"nodes", span.nodes},
                     {"leaves", span.leaves}});
  }
  return spans;
}

Json memory_by_rank_json(const Plan& plan, const Cluster& cluster) {
  Json ranks = Json::array();
  for (const RankMemory& rank : memory_by_rank(plan, cluster)) {
    Json json = memory_json(rank.parts);
    json["device_bytes"] = rank.device_bytes;
    ranks.push_back(json);
  }
  return ranks;
}

}  // namespace

Json result_json(const PlanResult& result, const Cluster& cluster) {
  Json json = plan_json(result.plan);
  json["axes"] = placement_json(result.plan, cluster);
  json["memory"] = memory_by_rank_json(result.plan, cluster);
  json["bottleneck"] = bottleneck(result.plan);
  const double cost = cost_per_million_tokens(result.plan, cluster);
  if (cost > 0) json["cost_per_million_tokens"] = cost;
  json["search"] = {{"considered", result.considered},
                    {"evaluated", result.evaluated},
                    {"seconds", result.seconds}};
  json["alternatives"] = Json::array();
  for (const Alternative& other : result.alternatives) {
    json["alternatives"].push_back(
        {{"layout", layout_json(other.layout)},
         {"prediction", prediction_json(other.prediction)},
         {"changes", changes_json(changes_by_cause(result.plan.prediction, other.prediction))}});
  }
  json["notes"] = result.notes;
  add_rejections(result.rejections, json);
  return json;
}

void add_rejections(const Rejections& rejections, Json& json) {
  if (rejections.first.empty()) return;
  for (const Rejection& rejection : rejections.first) {
    json["rejections"].push_back({{"layout", rejection.layout}, {"reason", rejection.reason}});
  }
  json["more_rejections"] = rejections.more;
}

}  // namespace trireme
