#include "planner/schedules/variants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "planner/synthesis/placed_anew.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr double kTie = 1 + 1e-9;

int limit_on(const ScheduleRequest& request, int rank) {
  const std::vector<int>& limit = *request.memory_limit;
  return limit.size() == 1 ? limit.front() : limit[static_cast<size_t>(rank)];
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

// How many micro-batches are in flight beyond the earlier chunks, by rank.
using InFlight = std::vector<int>;

int ceiling(double ratio, int most) {
  constexpr double kRounding = 1e-9;
  return static_cast<int>(std::min<double>(most, std::ceil(ratio - kRounding)));
}

// Enough to cover the time until a micro-batch that rank r begins on its last chunk comes back,
// r's own ops included: of the whole trip, or hop by hop. Less than the first leaves ranks idle
// whatever their order. The second is what strict alternation needs: there every hop and back takes
// a whole number of beats.
struct Covering {
  InFlight trip, hops;
};

Covering covering(const FamilyMember& member, const ScheduleRequest& request, int chunks) {
  const int p = request.pipeline, most = request.micro_batches * chunks;
  const double beat = period(request, chunks), hop = request.costs.transfer + request.costs.hop;
  const auto last_chunk = [&](int rank) -> const StageCost& {
    return request.costs.of_stage((chunks - 1) * p + rank);
  };
  const auto back = [&](int rank) {
    return member.held_back_slope < 0 ? last_chunk(rank).backward() : last_chunk(rank).input;
  };
  Covering result{InFlight(static_cast<size_t>(p), 1), InFlight(static_cast<size_t>(p), 1)};
  double trip = last_chunk(p - 1).forward + back(p - 1);
  for (int rank = p - 2; rank >= 0 && beat > 0; --rank) {
    const auto r = static_cast<size_t>(rank);
    trip += last_chunk(rank).forward + back(rank) + 2 * hop;
    const double leg = last_chunk(rank).forward + back(rank + 1) + 2 * hop;
    result.trip[r] = std::max(result.trip[r + 1], ceiling(trip / beat, most));
    result.hops[r] = std::min(most, result.hops[r + 1] + ceiling(leg / beat, most));
  }
  return result;
}

// The forwards beyond the schedule's own for that many in flight, as far as memory allows. Later
// ranks never run further ahead than earlier ones, or they would starve; with several chunks the
// first rank may not run so far ahead that it waits for forwards which the last rank only issues
// once it has a gradient back from the first.
Deeper deeper_for(const FamilyMember& member, const ScheduleRequest& request, const Shape& shape,
                  const InFlight& wanted) {
  const bool several = shape.chunks > 1;
  const int last_group = (shape.micro_batches - 1) % shape.group + 1;
  Deeper deeper;
  int before = several ? 2 * last_group + 1 : shape.micro_batches;
  for (int rank = 0; rank < shape.pipeline; ++rank) {
    const int own = member.warm_up_slope * (shape.pipeline - 1 - rank) + 1;
    int in_flight = std::max(own, wanted[static_cast<size_t>(rank)]);
    if (request.memory_limit) {
      const int elsewhere =
          (shape.chunks - 1) * shape.group + std::max(0, member.held_back_slope) * rank;
      in_flight = std::min(in_flight, limit_on(request, rank) - elsewhere);
    }
    in_flight = std::max(several ? own : 1, std::min(in_flight, before));
    if (!several) before = in_flight;
    deeper.push_back(in_flight - own);
  }
  return deeper;
}

// Overlapped pairs alternate strictly, so a hop each way takes a whole number of beats, and one
// that takes longer than its ops leave it holds up all: each hop gets as many more as it needs, or,
// where memory or micro-batches are short, as many of these as there is room for, spread evenly.
std::vector<Deeper> pair_depths(const ScheduleRequest& request, const Shape& shape) {
  const int hops = shape.pipeline - 1;
  const double beat = 2 * period(request, shape.chunks);
  const double hop = request.costs.transfer + request.costs.hop;
  if (hops == 0 || beat <= 0 || hop <= 0) return {};
  int room = (shape.micro_batches + 1) / 2 - shape.pipeline;
  for (int rank = 0; request.memory_limit && rank < shape.pipeline; ++rank) {
    room = std::min(room, limit_on(request, rank) / 2 - shape.pipeline);
  }
  const int for_each = ceiling(2 * hop / beat, shape.micro_batches);
  std::vector<Deeper> depths;
  int last = 0;
  for (int of_eight = 1; of_eight <= 8; ++of_eight) {
    const auto wanted = static_cast<int64_t>(for_each) * hops * of_eight / 8;
    const int first = static_cast<int>(std::min<int64_t>(wanted, room));
    if (first <= last) continue;
    Deeper deeper;
    for (int after = hops; after >= 0; --after) {
      deeper.push_back(static_cast<int>((static_cast<int64_t>(first) * after + hops - 1) / hops));
    }
    depths.push_back(std::move(deeper));
    last = first;
  }
  return depths;
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
  if (member.held_back_slope >= 0 && m % rounds == 0 && !request.latency_aware) return {m / rounds};
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
    if (member.deeper_pairs) {
      for (Deeper& deeper : pair_depths(request, shape)) {
        shape.deeper = std::move(deeper);
        shapes.push_back(shape);
      }
    }
    if (member.warm_up_slope == 0) continue;
    const Covering wanted = covering(member, request, chunks);
    for (const InFlight* in_flight : {&wanted.trip, &wanted.hops}) {
      shape.deeper = deeper_for(member, request, shape, *in_flight);
      const bool same =
          std::all_of(shape.deeper.begin(), shape.deeper.end(), [](int d) { return d == 0; });
      if (!same) shapes.push_back(shape);
    }
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

std::vector<Schedule> anew(const Schedule& schedule, const ScheduleRequest& request) {
  std::vector<int> most(static_cast<size_t>(request.pipeline), std::numeric_limits<int>::max());
  for (int rank = 0; request.memory_limit && rank < request.pipeline; ++rank) {
    most[static_cast<size_t>(rank)] = limit_on(request, rank);
  }
  return placed_anew(schedule, request.costs, most);
}

// Keeps the fastest of what it is shown, and if nothing keeps the memory limit what comes closest.
class Choice {
 public:
  explicit Choice(const ScheduleRequest& request) : request_(request) {}

  void consider(Schedule schedule) {
    if (request_.memory_limit) {
      const Excess excess = excess_of(schedule, request_);
      if (excess.activations > 0) {
        const bool closer = closest_.text.empty() || excess.activations < closest_.activations;
        if (closer) closest_ = excess;
        return;
      }
    }
    const double makespan = makespan_of(schedule, request_.costs);
    if (best_.ranks.empty() || makespan * kTie < least_) {
      best_ = std::move(schedule);
      least_ = makespan;
    }
  }

  bool reaches(double bound) const { return !best_.ranks.empty() && least_ <= bound * kTie; }

  Schedule take() {
    if (best_.ranks.empty()) throw Error(ErrorKind::bad_input, closest_.text);
    return std::move(best_);
  }

 private:
  const ScheduleRequest& request_;
  Schedule best_;
  double least_ = 0;
  Excess closest_;
};

}  // namespace

Schedule best_variant(const FamilyMember& member, const ScheduleRequest& request, int chunks) {
  const std::vector<Shape> shapes = shapes_of(member, request, chunks);
  const bool anew_too = request.latency_aware && member.placed_anew;
  if (shapes.size() == 1 && !request.memory_limit && !anew_too) return member.build(shapes.front());
  StepBound bound(request.micro_batches);
  member.bound(request.pipeline, chunks, request.costs, bound);
  const double least = bound.seconds(request.micro_batches);
  Choice choice(request);
  for (const Shape& shape : shapes) {
    choice.consider(member.build(shape));
    if (choice.reaches(least)) return choice.take();
  }
  if (anew_too) {
    for (Schedule& schedule : anew(member.build(shapes.front()), request)) {
      choice.consider(std::move(schedule));
    }
  }
  return choice.take();
}

}  // namespace trireme
