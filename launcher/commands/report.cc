#include "launcher/commands/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <string_view>

#include "launcher/commands/figures.h"
#include "planner/cost/accuracy.h"
#include "planner/drawing/plan_costs.h"
#include "planner/drawing/text.h"
#include "planner/summary.h"
#include "topology/hostlist.h"

namespace trireme {
namespace {

// A list of things that may be long: the first few, then how many more.
constexpr size_t kMostLines = 16;

std::string more(size_t count) {
  return count > kMostLines ? fmt::format("  ... and {} more\n", count - kMostLines) : "";
}

// Replicas of several kinds: which of them take how many micro-batches.
std::string shares_table(const Plan& plan) {
  std::string text;
  int first = 0;
  for (const Share& share : plan.layout.shares) {
    const Rank rank = rank_at(plan.layout, {0, first, 0});
    text += fmt::format("             replica {} to {}, from {} on: {} micro-batch{} each\n", first,
                        first + share.replicas - 1,
                        plan.placement[static_cast<size_t>(rank.value)].node, share.micro_batches,
                        share.micro_batches == 1 ? "" : "es");
    first += share.replicas;
  }
  return text;
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
  text += shares_table(plan);
  const std::string ranks =
      layout.recompute_ranks == 0
          ? ""
          : fmt::format(" on the first {} pipeline ranks", layout.recompute_ranks);
  text += fmt::format("Options      recompute {}{}, sequence parallel {}, optimizer sharding {}\n",
                      name_of(layout.recompute), ranks, layout.sequence_parallel ? "on" : "off",
                      layout.optimizer_sharding);
  const Prediction& p = plan.prediction;
  text += fmt::format("Prediction   {} per step, {:.4g} tokens/s, bubble {:.1f} %\n",
                      duration(p.step_seconds), p.tokens_per_second, 100 * p.bubble_fraction);
  text += fmt::format(
      "             {:.3g} model TFLOP/s per device ({:.3g} with recomputation), MFU {:.1f} %\n",
      p.model_tflops_per_device, p.hardware_tflops_per_device, 100 * p.mfu);
  return text;
}

std::string cost_line(const Plan& plan, const Cluster& cluster) {
  const double cost = cost_per_million_tokens(plan, cluster);
  if (cost == 0) return "";
  return fmt::format(
      "Cost         {:.4g} per million tokens, {:.4g} per step\n", cost,
      cost * 1e-6 * plan.prediction.tokens_per_second * plan.prediction.step_seconds);
}

const char* name_of(NodeLink link) {
  switch (link) {
    case NodeLink::nvlink:
      return "NVLink";
    case NodeLink::nvlink_pairs:
      return "NVLink pairs";
    case NodeLink::pcie:
      return "PCIe";
    case NodeLink::memory:
      break;
  }
  return "shared memory";
}

std::vector<const NodeGroup*> groups_in_use(const Plan& plan, const Cluster& cluster) {
  std::set<std::string_view> nodes;
  for (const PlacedRank& placed : plan.placement) nodes.insert(placed.node);
  std::vector<const NodeGroup*> groups;
  for (const NodeGroup& group : cluster.groups) {
    const bool used = std::any_of(group.hosts.begin(), group.hosts.end(),
                                  [&](const std::string& host) { return nodes.count(host) > 0; });
    if (used) groups.push_back(&group);
  }
  return groups;
}

// What each axis reaches across, and over what; of several kinds of node the slowest.
std::string axes_table(const Plan& plan, const Cluster& cluster) {
  const std::vector<const NodeGroup*> groups = groups_in_use(plan, cluster);
  const auto slowest = [&](auto rate) -> const NodeGroup& {
    return **std::min_element(groups.begin(), groups.end(),
                              [&](const auto* a, const auto* b) { return rate(*a) < rate(*b); });
  };
  const NodeGroup& inside = slowest([](const NodeGroup& g) { return g.link_bytes_per_s; });
  const NodeGroup& outside = slowest([](const NodeGroup& g) { return g.nics * g.nic_bytes_per_s; });
  std::string text;
  for (const AxisSpan& span : axis_spans(plan, cluster)) {
    text += fmt::format("  {:<9} {:>6} rank{}", span.axis, span.ranks, span.ranks == 1 ? "" : "s");
    if (span.ranks == 1) {
      text += "\n";
    } else if (span.nodes == 1) {
      text += fmt::format("  inside a node: {}, {:.4g} GB/s\n", name_of(inside.link),
                          inside.link_bytes_per_s / 1e9);
    } else {
      text += fmt::format("  over {} nodes{}: {} x {:.4g} Gbit/s per node\n", span.nodes,
                          span.leaves > 1 ? fmt::format(" of {} leaves", span.leaves) : "",
                          outside.nics, outside.nic_bytes_per_s * 8 / 1e9);
    }
  }
  return text;
}

// Of a step on one node everything stays inside: then there is nothing to say.
std::string links_table(const Prediction& prediction) {
  const bool leaves_a_node =
      std::any_of(prediction.links.begin(), prediction.links.end(),
                  [](const LinkTraffic& link) { return link.link == "node"; });
  if (!leaves_a_node) return "";
  std::string text =
      "\nLinks        the busiest of each kind: what leaves it, and for how long of a step\n";
  for (const LinkTraffic& link : prediction.links) {
    text += fmt::format("  {:<6} {:>9} {:>9} {:>5.1f} %  {}\n", link.link, size(link.bytes),
                        duration(link.seconds), 100 * link.seconds / prediction.step_seconds,
                        link.where);
  }
  return text;
}

// "n[1-4] (device 0 to 3)", which are those of each node, or where nodes differ "n1:4 to n4:3".
std::string seats(std::span<const PlacedRank> ranks) {
  constexpr size_t kLongest = 48;
  std::vector<std::string> hosts;
  std::map<std::string_view, std::set<int>> devices;
  for (const PlacedRank& rank : ranks) {
    if (devices[rank.node].empty()) hosts.push_back(rank.node);
    devices[rank.node].insert(rank.device);
  }
  const std::set<int>& own = devices[hosts.front()];
  const bool alike = std::all_of(devices.begin(), devices.end(),
                                 [&](const auto& of_node) { return of_node.second == own; });
  if (!alike) {
    return fmt::format("{}:{} to {}:{}", ranks.front().node, ranks.front().device,
                       ranks.back().node, ranks.back().device);
  }
  const bool in_line = *own.rbegin() - *own.begin() + 1 == static_cast<int>(own.size());
  std::string names = compress_hosts(hosts);
  if (names.size() > kLongest) {
    names = fmt::format("{} nodes, {} to {}", hosts.size(), hosts.front(), hosts.back());
  }
  return fmt::format("{} (device {})", names,
                     own.size() == 1 ? fmt::to_string(*own.begin())
                     : in_line       ? fmt::format("{} to {}", *own.begin(), *own.rbegin())
                                     : fmt::format("{}", fmt::join(own, ", ")));
}

std::string placement_table(const Plan& plan) {
  std::string text;
  const size_t block =
      static_cast<size_t>(plan.layout.tensor) * static_cast<size_t>(plan.layout.data);
  for (size_t p = 0; p < static_cast<size_t>(plan.layout.pipeline); ++p) {
    if (p == kMostLines) break;
    text +=
        fmt::format("  pipeline {:>3}   ranks {:>5}-{:<5}  {}\n", p, block * p, block * (p + 1) - 1,
                    seats(std::span(plan.placement).subspan(block * p, block)));
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

// The layers of a pipeline rank's chunks, as many as `width` columns hold.
std::string layers_of_rank(const Plan& plan, int rank, size_t width) {
  std::string text;
  for (const Stage& stage : plan.stages) {
    if (stage.pipeline_rank != rank) continue;
    const std::string layers = (text.empty() ? "" : ", ") + layers_of(stage);
    if (text.size() + layers.size() + 5 > width) return text + ", ...";
    text += layers;
  }
  return text;
}

// Memory of each pipeline rank: against its device where the cluster is known, else against the
// fullest rank.
std::string stage_table(const Plan& plan, const Cluster* cluster, bool colour) {
  constexpr int kBar = 30;
  const std::vector<double>& totals = plan.prediction.memory_bytes_per_pipeline_rank;
  const double most = totals.empty() ? 0 : *std::max_element(totals.begin(), totals.end());
  const auto memory =
      cluster == nullptr ? std::vector<RankMemory>() : memory_by_rank(plan, *cluster);
  std::string text =
      cluster == nullptr
          ? "\nStages       memory per device, beside the fullest, and layers of each chunk\n"
          : fmt::format("\nStages       memory per device: {}\n", memory_legend(colour));
  for (size_t p = 0; p < std::min(totals.size(), kMostLines); ++p) {
    const double held = cluster == nullptr ? totals[p] : memory[p].parts.total();
    text += fmt::format("  pipeline {:>3}  {:>9} ", p, size(held));
    text += cluster == nullptr
                ? fmt::format("|{}|", bar(most > 0 ? totals[p] / most : 0, kBar, colour))
                : fmt::format("of {:>9} |{}|", size(memory[p].device_bytes),
                              memory_bar(memory[p].parts, memory[p].device_bytes, kBar, colour));
    text += " " + layers_of_rank(plan, static_cast<int>(p), 28) + "\n";
  }
  return text + more(totals.size());
}

// The rows of a timeline; of a long pipeline its ends.
std::string timeline_table(const Plan& plan, bool colour) {
  constexpr size_t kEnd = 6;
  const Recording recording = recording_of(plan.schedule, drawing_costs(plan));
  const std::string rows = draw_text(timeline_of(plan.schedule, recording), {.colour = colour});
  std::string text = fmt::format("\nTimeline     {}\n", text_legend(colour));
  const auto ranks = static_cast<size_t>(plan.layout.pipeline);
  size_t begin = 0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    const size_t end = rows.find('\n', begin) + 1;
    const bool shown = ranks <= kMostLines || rank < kEnd || rank + kEnd >= ranks;
    if (shown) text += rows.substr(begin, end - begin);
    if (!shown && rank == kEnd) text += fmt::format("  ... {} ranks ...\n", ranks - 2 * kEnd);
    begin = end;
  }
  return text;
}

std::string breakdown_table(const Plan& plan, bool colour) {
  const Prediction& prediction = plan.prediction;
  std::string text = "\nStep         of the busiest pipeline rank\n";
  for (const auto& [cause, seconds] : prediction.breakdown) {
    const double share = prediction.step_seconds > 0 ? seconds / prediction.step_seconds : 0;
    text += fmt::format("  {:<21} {:>9} {:>5.1f} % |{}|\n", cause, duration(seconds), 100 * share,
                        bar(share, 40, colour));
  }
  return text;
}

std::string alternatives_table(const PlanResult& result) {
  if (result.alternatives.empty()) return "";
  const Prediction& best = result.plan.prediction;
  std::string text =
      "\n" + paragraph("Next best    ",
                       "layout: tensor x pipeline x data, v chunks, b micro-batch, r "
                       "or R recompute (selective, full), S sequence parallel, Z "
                       "optimizer sharding");
  text += fmt::format("  {:<9} {:>8}  {:<22} {:<14} {:>9}  {}\n", "step", "slower", "layout",
                      "schedule", "memory", "what grew most");
  for (const Alternative& other : result.alternatives) {
    const std::vector<double>& memory = other.prediction.memory_bytes_per_pipeline_rank;
    const CauseChange grown = changes_by_cause(best, other.prediction).front();
    text += fmt::format(
        "  {:<9} {:>6.1f} %  {:<22} {:<14} {:>9}  {} {}\n", duration(other.prediction.step_seconds),
        100 * (other.prediction.step_seconds / best.step_seconds - 1), short_name(other.layout),
        other.layout.schedule, size(*std::max_element(memory.begin(), memory.end())), grown.cause,
        signed_duration(grown.seconds));
  }
  return text;
}

// How far published runs of this device were off, and why this plan may be further.
std::string accuracy_line(const Plan& plan) {
  std::string text = accuracy_band(plan);
  if (!text.empty()) text += ".";
  for (const std::string& doubt : accuracy_of(plan).doubts) {
    text += (text.empty() ? "" : " ") + doubt;
  }
  return text;
}

}  // namespace

std::string accuracy_band(const Plan& plan) {
  const Accuracy accuracy = accuracy_of(plan);
  const bool nominal = plan.device == "cpu" && !accuracy.doubts.empty();
  return nominal ? "" : fmt::format("within {:.0f} %", 100 * accuracy.band);
}

std::string plan_table(const Plan& plan, const Cluster* cluster, bool colour) {
  std::string text = layout_table(plan);
  if (cluster != nullptr) text += cost_line(plan, *cluster);
  text += paragraph("Accuracy     ", accuracy_line(plan));
  text += paragraph("Bottleneck   ", bottleneck(plan));
  text += "\nPlacement    rank = t + tensor * (d + data * p)\n";
  if (cluster != nullptr) text += axes_table(plan, *cluster);
  return text + placement_table(plan) + links_table(plan.prediction) +
         stage_table(plan, cluster, colour) + timeline_table(plan, colour) +
         breakdown_table(plan, colour);
}

std::string result_table(const PlanResult& result, const Cluster& cluster, bool colour) {
  std::string text = plan_table(result.plan, &cluster, colour) + alternatives_table(result);
  text += fmt::format("\nSearch       {} layouts considered, {} simulated, {}\n", result.considered,
                      result.evaluated, duration(result.seconds));
  for (const std::string& note : result.notes) text += paragraph("Note         ", note);
  if (!result.rejections.first.empty()) text += "\n" + rejections_table(result.rejections);
  return text;
}

std::string rejections_table(const Rejections& rejections) {
  if (rejections.first.empty()) return "";
  std::string text = "Rejected\n";
  for (const Rejection& rejection : rejections.first) {
    text += fmt::format("  {}\n    {}\n", rejection.layout, rejection.reason);
  }
  if (rejections.more > 0) {
    text += fmt::format("  ... and {} more; pins narrow the list\n", rejections.more);
  }
  return text;
}

}  // namespace trireme
