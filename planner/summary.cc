#include "planner/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>
#include <unordered_map>

#include "planner/cost/step.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

struct HostPlace {
  int node = 0;
  size_t group = 0;
};

// Of the plan's hosts; the cluster may have many more.
std::unordered_map<std::string_view, HostPlace> places_by_host(const Plan& plan,
                                                               const Cluster& cluster) {
  std::unordered_map<std::string_view, HostPlace> places;
  for (const PlacedRank& placed : plan.placement) places[placed.node] = {};
  size_t found = 0;
  int node = 0;
  for (size_t g = 0; g < cluster.groups.size() && found < places.size(); ++g) {
    for (const std::string& host : cluster.groups[g].hosts) {
      const auto place = places.find(host);
      if (place != places.end()) {
        place->second = {node, g};
        ++found;
      }
      ++node;
      if (found == places.size()) break;
    }
  }
  TRIREME_CHECK(found == places.size());
  return places;
}

using GroupOf = std::vector<Rank> (*)(const Layout&, Rank);

AxisSpan span_of(const std::string& axis, const Layout& layout, int Coordinates::*coordinate,
                 GroupOf group_of, const std::vector<int>& node_of_rank, int leaf_nodes) {
  AxisSpan span{axis};
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    if (coordinates_of(layout, Rank(rank)).*coordinate != 0) continue;  // one member of each group
    std::set<int> nodes, leaves;
    const std::vector<Rank> group = group_of(layout, Rank(rank));
    for (const Rank member : group) {
      const int node = node_of_rank[static_cast<size_t>(member.value)];
      nodes.insert(node);
      leaves.insert(leaf_nodes > 0 ? node / leaf_nodes : 0);
    }
    span.ranks = static_cast<int>(group.size());
    span.nodes = std::max(span.nodes, static_cast<int>(nodes.size()));
    span.leaves = std::max(span.leaves, static_cast<int>(leaves.size()));
  }
  return span;
}

// A cause of the breakdown in words, with the figure of the layout that it grows with.
std::string in_words(const std::string& cause, const Layout& layout) {
  if (cause == "compute") return "compute";
  if (cause == "tensor_communication") {
    return fmt::format("communication among {} tensor ranks", layout.tensor);
  }
  if (cause == "pipeline_idle") {
    return fmt::format("idle time in a pipeline of {} ranks that has {} micro-batch{}",
                       layout.pipeline, layout.micro_batches,
                       layout.micro_batches == 1 ? "" : "es");
  }
  if (cause == "data_reduction") {
    return fmt::format("the sum of gradients over {} replicas that no backward hides", layout.data);
  }
  if (cause == "tied_embeddings") return "agreement of the two copies of the embedding";
  if (cause == "optimizer") return "the optimizer's update";
  if (cause == "shared_links") return "the wait for NICs or uplinks that others use";
  if (cause == "shared_cores") return "the wait for cores that other ranks use";
  std::string words = cause;
  std::replace(words.begin(), words.end(), '_', ' ');
  return words;
}

// Causes with their shares of the step, the largest first; forward and backward are one.
std::vector<std::pair<std::string, double>> shares(const Prediction& prediction) {
  std::vector<std::pair<std::string, double>> shares = {{"compute", 0}};
  for (const auto& [cause, seconds] : prediction.breakdown) {
    const double share = seconds / prediction.step_seconds;
    if (cause == "forward" || cause == "backward") {
      shares.front().second += share;
    } else {
      shares.emplace_back(cause, share);
    }
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return shares;
}

// By how much the busiest pipeline rank has more to do than the average one, and which it is.
struct Busiest {
  int rank = 0;
  double above_average = 0;
};

Busiest busiest_rank(const Plan& plan) {
  if (plan.prediction.stages.size() != plan.stages.size()) return {};
  std::vector<double> work(static_cast<size_t>(plan.layout.pipeline), 0);
  double sum = 0;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePrediction& stage = plan.prediction.stages[s];
    const double seconds = stage.forward_seconds + stage.input_seconds + stage.weight_seconds;
    work[static_cast<size_t>(plan.stages[s].pipeline_rank)] += seconds;
    sum += seconds;
  }
  const auto most = std::max_element(work.begin(), work.end());
  const double average = sum / static_cast<double>(work.size());
  return {static_cast<int>(most - work.begin()), average > 0 ? *most / average - 1 : 0};
}

// By pipeline rank of this replica.
std::vector<RankMemory> memory_of_replica(const StepModel& model, const PlacedLayout& layout,
                                          const Plan& plan, int replica) {
  std::vector<RankMemory> ranks;
  for (const MemoryParts& parts : model.memory(layout, plan.stages, plan.schedule_of(replica))) {
    ranks.push_back({parts, model.device_memory(layout, static_cast<int>(ranks.size()))});
  }
  return ranks;
}

}  // namespace

std::vector<AxisSpan> axis_spans(const Plan& plan, const Cluster& cluster) {
  const auto places = places_by_host(plan, cluster);
  std::vector<int> nodes;
  for (const PlacedRank& placed : plan.placement) nodes.push_back(places.at(placed.node).node);
  const int leaf = cluster.fabric.kind == FabricKind::tree ? cluster.fabric.leaf_nodes : 0;
  const Layout& layout = plan.layout;
  return {span_of("tensor", layout, &Coordinates::tensor, tensor_group, nodes, leaf),
          span_of("data", layout, &Coordinates::data, data_group, nodes, leaf),
          span_of("pipeline", layout, &Coordinates::pipeline, pipeline_group, nodes, leaf)};
}

std::vector<RankMemory> memory_by_rank(const Plan& plan, const Cluster& cluster) {
  const auto places = places_by_host(plan, cluster);
  PlacedLayout layout{plan.layout, {}};
  std::vector<Run>& runs = layout.placement.runs;
  const auto block =
      static_cast<size_t>(plan.layout.tensor) * static_cast<size_t>(plan.layout.data);
  for (size_t rank = 0; rank < plan.placement.size(); rank += block) {
    const size_t group = places.at(plan.placement[rank].node).group;
    if (runs.empty() || runs.back().group != group) runs.push_back({group, 0});
    ++runs.back().pipeline_ranks;
  }
  const StepModel model(plan.job, cluster);
  std::vector<RankMemory> ranks = memory_of_replica(model, layout, plan, 0);
  // Of replicas of several kinds, for each pipeline rank the one that has least room.
  int first = 0;
  for (const Share& share : plan.layout.shares) {
    const Rank rank = rank_at(plan.layout, {0, first, 0});
    const size_t group = places.at(plan.placement[static_cast<size_t>(rank.value)].node).group;
    layout.placement.runs = {{group, plan.layout.pipeline}};
    layout.micro_batches = share.micro_batches;
    const std::vector<RankMemory> others = memory_of_replica(model, layout, plan, first);
    for (size_t p = 0; p < ranks.size(); ++p) {
      if (first == 0 || others[p].room() < ranks[p].room()) ranks[p] = others[p];
    }
    first += share.replicas;
  }
  return ranks;
}

std::string bottleneck(const Plan& plan) {
  const auto causes = shares(plan.prediction);
  const auto percent = [](double share) { return fmt::format("{:.1f} %", 100 * share); };
  std::string text = in_words(causes.front().first, plan.layout);
  text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  text += fmt::format(" takes {} of the step", percent(causes.front().second));
  const Busiest busiest = busiest_rank(plan);
  if (causes.front().first == "compute" && busiest.above_average > 0.02) {
    text += fmt::format(", set by pipeline rank {} with {} more work than the average",
                        busiest.rank, percent(busiest.above_average));
  }
  if (causes.size() > 1 && causes[1].second > 0.005) {
    text += fmt::format("; next is {} with {}", in_words(causes[1].first, plan.layout),
                        percent(causes[1].second));
  }
  return text + ".";
}

double cost_per_million_tokens(const Plan& plan, const Cluster& cluster) {
  const auto places = places_by_host(plan, cluster);
  double per_hour = 0;
  for (const PlacedRank& placed : plan.placement) {
    const double price = cluster.groups[places.at(placed.node).group].price_per_device_hour;
    if (price <= 0) return 0;
    per_hour += price;
  }
  return per_hour / 3600 / plan.prediction.tokens_per_second * 1e6;
}

}  // namespace trireme
