#include "planner/profile/accelerator_profile.h"

#include <algorithm>

#include "planner/profile/line.h"

namespace trireme {
namespace {

std::optional<StageCost> mix(const Line& line, const std::optional<StageCost>& a,
                             const std::optional<StageCost>& b) {
  return a && b ? std::optional(line.between(*a, *b)) : std::nullopt;
}

}  // namespace

std::optional<AcceleratorProfile::Parts> AcceleratorProfile::parts(int tensor, int micro_batch,
                                                                   bool sequence_parallel,
                                                                   Recompute recompute) const {
  std::vector<const MeasuredParts*> rows;
  for (const MeasuredParts& row : measured) {
    if (row.tensor == tensor && row.sequence_parallel == sequence_parallel &&
        row.recompute == recompute) {
      rows.push_back(&row);
    }
  }
  if (rows.empty()) return std::nullopt;
  std::sort(rows.begin(), rows.end(),
            [](const auto* a, const auto* b) { return a->micro_batch < b->micro_batch; });
  std::vector<double> sizes;
  for (const MeasuredParts* row : rows) sizes.push_back(row->micro_batch);
  const Line line = line_through(sizes, micro_batch);
  const Parts &a = rows[line.a]->parts, &b = rows[line.b]->parts;
  return Parts{line.between(a.layer, b.layer), mix(line, a.embedding, b.embedding),
               mix(line, a.head, b.head)};
}

std::optional<double> AcceleratorProfile::seconds(Collective kind, int ranks, int nodes,
                                                  double bytes) const {
  std::vector<std::pair<double, double>> points;  // bytes, seconds
  for (const MeasuredCollective& row : collectives) {
    if (row.kind == kind && row.ranks == ranks && row.nodes == nodes) {
      points.emplace_back(row.bytes, row.seconds);
    }
  }
  if (points.empty()) return std::nullopt;
  std::sort(points.begin(), points.end());
  if (bytes <= points.front().first) return points.front().second;
  std::vector<double> sizes;
  for (const auto& [size, seconds] : points) sizes.push_back(size);
  const Line line = line_through(sizes, bytes);
  // More bytes take no less, whatever the scatter of the last two points.
  const double least = bytes >= points.back().first ? points.back().second : 0;
  return std::max(least, line.between(points[line.a].second, points[line.b].second));
}

}  // namespace trireme
