#include "planner/idle.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/plan/limits.h"

namespace trireme {

std::string idle_devices(const Cluster& cluster, const PlacedLayout& layout, const Pins& pins) {
  int there = 0;
  for (const size_t group : groups_in_use(layout.placement)) {
    const NodeGroup& nodes = cluster.groups[group];
    there += static_cast<int>(nodes.hosts.size()) * nodes.devices;
  }
  if (layout.ranks() >= there) return "";
  std::string why = "; no layout with more that fits is faster for this batch and model";
  if (there > limits::kRanks) {
    why = fmt::format("; a plan has no more than {} ranks", limits::kRanks);
  } else if (pins.tensor && pins.pipeline && pins.data) {
    why = ", as pinned";
  } else if (pins != Pins{}) {
    why = "; with these pins no layout with more that fits is faster";
  }
  return fmt::format("{} of {} devices are used{}", layout.ranks(), there, why);
}

std::vector<std::string> idle_groups(const Cluster& cluster, const PlacedLayout& layout) {
  std::vector<std::string> notes;
  const std::vector<size_t> used = groups_in_use(layout.placement);
  for (size_t g = 0; g < cluster.groups.size(); ++g) {
    if (std::find(used.begin(), used.end(), g) != used.end()) continue;
    const NodeGroup& idle = cluster.groups[g];
    notes.push_back(
        fmt::format("{} nodes with {} x {} ({} to {}) stay idle: {}", idle.hosts.size(),
                    idle.devices, idle.device.name, idle.hosts.front(), idle.hosts.back(),
                    idle.device.is_cpu() ? "CPU nodes of several kinds do not work together"
                                         : "no layout that has ranks there is faster"));
  }
  return notes;
}

}  // namespace trireme
