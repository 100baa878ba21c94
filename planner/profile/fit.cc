#include "planner/profile/fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "topology/base/check.h"

namespace trireme {
namespace {

struct Line {
  double at_zero = 0;
  double slope = 0;
};

// Neither is below 0: a line that would be is drawn through 0, or level.
Line fit_line(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sx += x[i];
    sy += y[i];
    sxx += x[i] * x[i];
    sxy += x[i] * y[i];
  }
  const double spread = n * sxx - sx * sx;
  if (!(spread > 0)) return {sy / n, 0};
  const Line line{(sy * sxx - sx * sxy) / spread, (n * sxy - sx * sy) / spread};
  if (line.slope < 0) return {sy / n, 0};
  if (line.at_zero < 0) return {0, sxy / sxx};
  return line;
}

constexpr size_t kUnknowns = 4;
using Row = std::array<double, kUnknowns + 1>;  // coefficients and the right side

// Least squares of `rows` in the unknowns whose bits are set, the others 0, by normal equations and
// elimination. Nothing when they do not determine the unknowns or one would be negative.
std::optional<Row> solve(const std::vector<Row>& rows, unsigned set) {
  std::array<Row, kUnknowns> a{};
  for (size_t i = 0; i < kUnknowns; ++i) {
    if ((set >> i & 1U) == 0) {
      a[i][i] = 1;
      continue;
    }
    for (const Row& row : rows) {
      for (size_t j = 0; j <= kUnknowns; ++j) {
        if (j == kUnknowns || (set >> j & 1U) != 0) a[i][j] += row[i] * row[j];
      }
    }
  }
  for (size_t i = 0; i < kUnknowns; ++i) {
    const double before = a[i][i];
    for (size_t k = 0; k < i; ++k) {
      const double factor = a[i][k] / a[k][k];
      for (size_t j = k; j <= kUnknowns; ++j) a[i][j] -= factor * a[k][j];
    }
    if (!(a[i][i] > 1e-9 * before)) return std::nullopt;
  }
  Row x{};
  for (size_t i = kUnknowns; i-- > 0;) {
    x[i] = a[i][kUnknowns];
    for (size_t j = i + 1; j < kUnknowns; ++j) x[i] -= a[i][j] * x[j];
    x[i] /= a[i][i];
    if (x[i] < 0) return std::nullopt;
  }
  return x;
}

double residual(const std::vector<Row>& rows, const Row& x) {
  double sum = 0;
  for (const Row& row : rows) {
    double off = -row[kUnknowns];
    for (size_t i = 0; i < kUnknowns; ++i) off += row[i] * x[i];
    sum += off * off;
  }
  return sum;
}

// Of all sets of unknowns that are allowed to differ from 0, the best: so few can all be tried.
Row solve_not_negative(const std::vector<Row>& rows) {
  Row best{};
  double least = std::numeric_limits<double>::infinity();
  for (unsigned set = 0; set < 1U << kUnknowns; ++set) {
    const auto x = solve(rows, set);
    if (!x) continue;
    const double error = residual(rows, *x);
    if (error < least) {
      least = error;
      best = *x;
    }
  }
  return best;
}

}  // namespace

double exchanged_bytes(double parameters, int data) {
  return 2.0 * (data - 1) / data * 4 * parameters;
}

std::vector<Profile::MeasuredParts> fit_parts(const std::vector<RunSample>& runs,
                                              const HeadShare& head_share) {
  std::map<std::tuple<int, int, int>, std::vector<const RunSample*>> groups;
  for (const RunSample& run : runs) {
    groups[{run.tensor, run.micro_batch, run.threads}].push_back(&run);
  }
  std::vector<Profile::MeasuredParts> measured;
  for (const auto& [key, group] : groups) {
    Profile::MeasuredParts row;
    std::tie(row.tensor, row.micro_batch, row.threads) = key;
    std::vector<double> layers;
    for (const RunSample* run : group) layers.push_back(run->layers);
    TRIREME_CHECK(*std::min_element(layers.begin(), layers.end()) <
                  *std::max_element(layers.begin(), layers.end()));
    const StageCost share = head_share(row.tensor, row.micro_batch);
    for (double StageCost::*kind : {&StageCost::forward, &StageCost::input, &StageCost::weight}) {
      std::vector<double> seconds;
      for (const RunSample* run : group) seconds.push_back(run->op.*kind);
      const Line line = fit_line(layers, seconds);
      row.parts.layer.*kind = line.slope;
      row.parts.head.*kind = line.at_zero * share.*kind;
      row.parts.embedding.*kind = line.at_zero * (1 - share.*kind);
    }
    // One thread that waits for nobody asks for one core, however little of it it got.
    if (row.tensor == 1 && row.threads == 1) {
      measured.push_back(row);
      continue;
    }
    row.parts.cores = 0;
    for (const RunSample* run : group) row.parts.cores += run->cores / double(group.size());
    measured.push_back(row);
  }
  return measured;
}

Profile::StepEnd fit_step_end(const std::vector<RunSample>& runs) {
  std::vector<Row> rows;
  for (const RunSample& run : runs) {
    const int ranks = run.tensor * run.data;
    const double unit = 1 / run.step_seconds;
    rows.push_back({unit, unit * (ranks - 1), unit * run.parameters,
                    unit * exchanged_bytes(run.parameters, run.data),
                    run.other_seconds / run.step_seconds});
  }
  // Comparable columns keep the elimination sound.
  Row scale{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < kUnknowns; ++i) scale[i] = std::max(scale[i], row[i]);
  }
  for (Row& row : rows) {
    for (size_t i = 0; i < kUnknowns; ++i) row[i] = scale[i] > 0 ? row[i] / scale[i] : 0;
  }
  Row x = solve_not_negative(rows);
  for (size_t i = 0; i < kUnknowns; ++i) x[i] = scale[i] > 0 ? x[i] / scale[i] : 0;
  return {x[0], x[1], x[2], x[3]};
}

Profile::Message fit_message(const std::vector<MessageSample>& runs, const Profile::StepEnd& end) {
  if (runs.empty()) return {};
  std::vector<double> bytes, hops, busy;
  for (const MessageSample& run : runs) {
    const double without =
        end.seconds + end.seconds_per_peer + end.seconds_per_parameter * run.parameters;
    bytes.push_back(run.bytes);
    hops.push_back(run.hop_seconds);
    busy.push_back(std::max(0.0, run.other_seconds - without) / run.messages);
  }
  const Line hop = fit_line(bytes, hops), rank = fit_line(bytes, busy);
  return {hop.at_zero, hop.slope, rank.at_zero, rank.slope};
}

}  // namespace trireme
