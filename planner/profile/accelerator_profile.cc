#include "planner/profile/accelerator_profile.h"

#include <algorithm>

namespace trireme {
namespace {

// Where a size lies among those measured, ascending: the two whose line it lies on and their
// shares.
struct Line {
  size_t a = 0, b = 0;
  double share_a = 1, share_b = 0;
};

Line line_through(const std::vector<double>& sizes, double size) {
  if (sizes.size() == 1 || size < sizes.front()) return {0, 0, size / sizes.front(), 0};
  size_t upper = 1;
  while (upper + 1 < sizes.size() && sizes[upper] < size) ++upper;
  const double share = (size - sizes[upper - 1]) / (sizes[upper] - sizes[upper - 1]);
  return {upper - 1, upper, 1 - share, share};
}

StageCost mix(const Line& line, const StageCost& a, const StageCost& b) {
  const auto value = [&](double p, double q) {
    return std::max(0.0, line.share_a * p + line.share_b * q);
  };
  return {value(a.forward, b.forward), value(a.input, b.input), value(a.weight, b.weight)};
}

std::optional<StageCost> mix(const Line& line, const std::optional<StageCost>& a,
                             const std::optional<StageCost>& b) {
  return a && b ? std::optional(mix(line, *a, *b)) : std::nullopt;
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
  return Parts{mix(line, a.layer, b.layer), mix(line, a.embedding, b.embedding),
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
  return line.share_a * points[line.a].second + line.share_b * points[line.b].second;
}

}  // namespace trireme
