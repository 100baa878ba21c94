#include "planner/idle.h"

#include <fmt/format.h>

#include <algorithm>

namespace trireme {

std::string idle_devices(const Cluster& cluster, const PlacedLayout& layout, bool data_pinned) {
  int there = 0;
  for (const Run& run : layout.placement.runs) {
    const NodeGroup& nodes = cluster.groups[run.group];
    there += static_cast<int>(nodes.hosts.size()) * nodes.devices;
  }
  if (layout.ranks() >= there) return "";
  return fmt::format("{} of {} devices are used{}", layout.ranks(), there,
                     data_pinned
                         ? ", as pinned"
                         : "; no layout with more that fits is faster for this batch and model");
}

std::vector<std::string> idle_groups(const Cluster& cluster, const PlacedLayout& layout) {
  std::vector<std::string> notes;
  for (size_t g = 0; g < cluster.groups.size(); ++g) {
    const std::vector<Run>& runs = layout.placement.runs;
    const bool used =
        std::any_of(runs.begin(), runs.end(), [g](const Run& run) { return run.group == g; });
    if (used) continue;
    const NodeGroup& idle = cluster.groups[g];
    notes.push_back(
        fmt::format("{} nodes with {} x {} ({} to {}) stay idle: {}", idle.hosts.size(),
                    idle.devices, idle.device.name, idle.hosts.front(), idle.hosts.back(),
                    idle.device.is_cpu() ? "CPU nodes of several kinds do not work together"
                                         : "no layout that has pipeline ranks there is faster"));
  }
  return notes;
}

}  // namespace trireme
