#include "planner/schedules/variants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr double kTie = 1 + 1e-9;

int limit_on(const ScheduleRequest& request, int rank) {
  const std::vector<int>& limit = *request.memory_limit;
  return limit.size() == 1 ? limit.front() : limit[static_cast<size_t>(rank)];
}

// How long a micro-batch is away from rank r once it has left the last chunk there, r's own ops
// included: (p-r)(F+B) + 2(p-1-r)hop when all stages are alike. Only input gradients are waited for
// where backwards are split.
double round_trip(const FamilyMember& member, const ScheduleRequest& request, int chunks,
                  int rank) {
  const int p = request.pipeline;
  double time = 2.0 * (p - 1 - rank) * request.costs.hop;
  for (int s = (chunks - 1) * p + rank; s < chunks * p; ++s) {
    const StageCost& cost = request.costs.of_stage(s);
    time += cost.forward + (member.held_back_slope < 0 ? cost.backward() : cost.input);
  }
  return time;
}

// In the steady state every rank runs one forward and one backward in this time: the mean of its
// chunks on the slowest rank.
double period(const ScheduleRequest& request, int chunks) {
  double slowest = 0;
  for (int rank = 0; rank < request.pipeline; ++rank) {
    double own = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const StageCost& cost = request.costs.of_stage(chunk * request.pipeline + rank);
      own += cost.forward + cost.backward();
    }
    slowest = std::max(slowest, own / chunks);
  }
  return slowest;
}

// By rank the forwards beyond the schedule's own that cover the round trip, as far as memory
// allows. Later ranks never run further ahead than earlier ones, or they would starve.
Deeper deeper_for_latency(const FamilyMember& member, const ScheduleRequest& request,
                          const Shape& shape) {
  constexpr double kRounding = 1e-9;
  const double beat = period(request, shape.chunks);
  const int most = shape.micro_batches * shape.chunks;
  Deeper deeper;
  int before = most;
  for (int rank = 0; rank < shape.pipeline; ++rank) {
    const int own = member.warm_up_slope * (shape.pipeline - 1 - rank) + 1;
    const double need = beat > 0 ? round_trip(member, request, shape.chunks, rank) / beat : 0;
    int in_flight =
        std::max(own, static_cast<int>(std::min<double>(most, std::ceil(need - kRounding))));
    if (request.memory_limit) {
      const int elsewhere =
          (shape.chunks - 1) * shape.group + std::max(0, member.held_back_slope) * rank;
      const int least = shape.chunks == 1 ? 1 : own;
      in_flight = std::max(least, std::min(in_flight, limit_on(request, rank) - elsewhere));
    }
    if (shape.chunks == 1) in_flight = std::min(in_flight, before);
    before = in_flight;
    deeper.push_back(in_flight - own);
  }
  return deeper;
}

// A long list of groups is thinned out, ever more towards the long ones, so that a request for
// millions of ops takes seconds.
std::vector<int> thinned(const std::vector<int>& groups, const Shape& shape) {
  constexpr double kMostOps = 2e7;
  const double ops = 2.0 * shape.pipeline * shape.micro_batches * shape.chunks;
  const auto most = static_cast<size_t>(std::max(8.0, kMostOps / ops));
  if (groups.size() <= most) return groups;
  std::vector<int> kept;
  for (size_t k = 0; k < most; ++k) {
    const double share = static_cast<double>(k) / static_cast<double>(most - 1);
    const double index = std::pow(static_cast<double>(groups.size()), share) - 1;
    const int group = groups[std::min(groups.size() - 1, static_cast<size_t>(std::lround(index)))];
    if (kept.empty() || group > kept.back()) kept.push_back(group);
  }
  return kept;
}

std::vector<int> groups_of(const FamilyMember& member, const ScheduleRequest& request,
                           const Shape& shape) {
  const int p = shape.pipeline, m = shape.micro_batches;
  if (!member.groups) return {m};
  if (request.group) return {*request.group};
  const std::vector<int> legal = legal_groups(p, m);
  if (shape.chunks == 1) return {legal.front()};
  const int rounds = std::max(1, m / p);
  // The group of PyTorch's ScheduleInterleavedZeroBubble, wherever that is defined.
  if (member.held_back_slope >= 0 && m % rounds == 0 && !request.memory_limit) return {m / rounds};
  return thinned(legal, shape);
}

std::vector<Shape> shapes_of(const FamilyMember& member, const ScheduleRequest& request,
                             int chunks) {
  std::vector<Shape> shapes;
  Shape shape{request.pipeline, request.micro_batches, chunks, request.micro_batches, {}};
  for (const int group : groups_of(member, request, shape)) {
    shape.group = group;
    shape.deeper.clear();
    if (request.warm_up) {
      shape.deeper.assign(static_cast<size_t>(request.pipeline), *request.warm_up);
    }
    shapes.push_back(shape);
    if (!request.latency_aware) continue;
    shape.deeper = deeper_for_latency(member, request, shape);
    const bool same =
        std::all_of(shape.deeper.begin(), shape.deeper.end(), [](int d) { return d == 0; });
    if (!same) shapes.push_back(shape);
  }
  return shapes;
}

// By how much the worst rank exceeds the limit.
struct Excess {
  int activations = 0;
  std::string text;
};

Excess excess_of(const Schedule& schedule, const ScheduleRequest& request) {
  Excess worst;
  const std::vector<int> peaks = simulate(schedule, {}).peak_activations;
  for (int rank = 0; rank < schedule.pipeline(); ++rank) {
    const int peak = peaks[static_cast<size_t>(rank)], limit = limit_on(request, rank);
    if (peak - limit <= worst.activations) continue;
    worst = {
        peak - limit,
        fmt::format("{} with {} micro-batches: rank {} of {} holds {} chunk activations, above "
                    "the limit of {}",
                    schedule.name, schedule.micro_batches, rank, schedule.pipeline(), peak, limit)};
  }
  return worst;
}

}  // namespace

Schedule best_variant(const FamilyMember& member, const ScheduleRequest& request, int chunks) {
  const std::vector<Shape> shapes = shapes_of(member, request, chunks);
  if (shapes.size() == 1 && !request.memory_limit) return member.build(shapes.front());
  const double bound = member.bound(shapes.front(), request.costs);
  Schedule best;
  double least = 0;
  Excess closest;
  for (const Shape& shape : shapes) {
    Schedule schedule = member.build(shape);
    if (request.memory_limit) {
      const Excess excess = excess_of(schedule, request);
      if (excess.activations > 0) {
        const bool closer = closest.text.empty() || excess.activations < closest.activations;
        if (closer) closest = excess;
        continue;
      }
    }
    const double makespan = makespan_of(schedule, request.costs);
    if (best.ranks.empty() || makespan * kTie < least) {
      best = std::move(schedule);
      least = makespan;
    }
    if (least <= bound * kTie) break;
  }
  if (best.ranks.empty()) throw Error(ErrorKind::bad_input, closest.text);
  return best;
}

}  // namespace trireme
