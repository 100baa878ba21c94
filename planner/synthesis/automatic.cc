#include "planner/synthesis/automatic.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/synthesis/family_choice.h"
#include "planner/synthesis/lower_bound.h"
#include "planner/synthesis/synthesis.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr double kTie = 1 + 1e-9;

Error refuse(const std::string& message) {
  return Error(ErrorKind::bad_input, "auto: " + message);
}

void check_request(const AutoRequest& request) {
  const auto at_least_one = [](const char* what, int value) {
    if (value < 1) throw refuse(fmt::format("{} must be at least 1, found {}", what, value));
  };
  at_least_one("pipeline", request.pipeline);
  at_least_one("micro-batches", request.micro_batches);
  at_least_one("chunks", request.chunks);
  const auto stages = static_cast<size_t>(request.pipeline) * static_cast<size_t>(request.chunks);
  const size_t costs = request.costs.stages.size();
  if (costs != 1 && costs != stages) {
    throw refuse(
        fmt::format("found costs of {} stages, expected one for all or {}", costs, stages));
  }
  TRIREME_CHECK(!request.costs.op_time);
}

// By rank.
std::vector<double> limit_by_rank(const AutoRequest& request) {
  const auto ranks = static_cast<size_t>(request.pipeline);
  std::vector<double> limit =
      request.memory_limit.value_or(std::vector<double>{std::numeric_limits<double>::infinity()});
  if (limit.size() == 1) limit.assign(ranks, limit.front());
  if (limit.size() == ranks) return limit;
  throw refuse(fmt::format("a memory limit is one number or one for each of {} ranks, found {}",
                           ranks, limit.size()));
}

// Why no schedule of stages on these places can keep the limit; empty where one can.
std::string too_little(const std::vector<StagePlace>& places, const AutoRequest& request,
                       const std::vector<double>& limit) {
  std::vector<double> least(limit.size(), 0);
  for (size_t stage = 0; stage < places.size(); ++stage) {
    const StageMemory memory = memory_of(request.costs, stage);
    least[static_cast<size_t>(places[stage].rank)] +=
        std::max(memory.activation, memory.kept_after_input);
  }
  for (size_t rank = 0; rank < limit.size(); ++rank) {
    if (least[rank] <= limit[rank] * kTie) continue;
    return fmt::format(
        "rank {} may hold {:.6g}, but a micro-batch needs {:.6g} there, since it passes all stages "
        "before its backward can free the first",
        rank, limit[rank], least[rank]);
  }
  return "";
}

// Where the stages may lie.
std::vector<std::vector<StagePlace>> placements_of(const AutoRequest& request,
                                                   const std::vector<double>& limit) {
  std::vector<std::vector<StagePlace>> placements = {
      loop_placement(request.pipeline, request.chunks)};
  const std::string reason = too_little(placements.front(), request, limit);
  if (request.chunks == 2 && request.pipeline > 1) {
    placements.push_back(v_placement(request.pipeline, request.chunks));
  }
  placements.erase(std::remove_if(placements.begin(), placements.end(),
                                  [&](const std::vector<StagePlace>& places) {
                                    return !too_little(places, request, limit).empty();
                                  }),
                   placements.end());
  if (placements.empty()) throw refuse(reason);
  return placements;
}

// What no schedule of these stages ends before, whatever pairs overlap.
double bound_under_overlap(const std::vector<StagePlace>& places, const AutoRequest& request,
                           const std::vector<double>& limit) {
  const Flow flow = make_flow(places, request.pipeline, request.micro_batches,
                              least_in_pairs(request.costs), limit);
  return lower_bound(flow, windows_of(flow));
}

class Choice {
 public:
  explicit Choice(const AutoRequest& request) : request_(request), limit_(limit_by_rank(request)) {}

  AutoChoice run() {
    const std::vector<FamilySchedule> family = family_within(request_, limit_, choice_.considered);
    for (const FamilySchedule& member : family)
      offer(member.name, member.schedule, member.makespan);
    choice_.lower_bound = std::numeric_limits<double>::infinity();
    const auto placements = placements_of(request_, limit_);
    for (const auto& places : placements) {
      search(places, family, request_.effort / static_cast<int64_t>(placements.size()));
    }
    TRIREME_CHECK(choice_.lower_bound <= choice_.makespan * kTie);
    choice_.lower_bound = std::min(choice_.lower_bound, choice_.makespan);
    choice_.schedule.name = "auto";
    return std::move(choice_);
  }

 private:
  void offer(const std::string& origin, const Schedule& schedule, double makespan) {
    if (!choice_.origin.empty() && makespan * kTie >= choice_.makespan) return;
    choice_.schedule = schedule;
    choice_.origin = origin;
    choice_.makespan = makespan;
  }

  void search(const std::vector<StagePlace>& places, const std::vector<FamilySchedule>& family,
              int64_t effort) {
    const Flow flow =
        make_flow(places, request_.pipeline, request_.micro_batches, request_.costs, limit_);
    const Windows windows = windows_of(flow);
    const bool overlaps = request_.costs.overlap > 0;
    double bound =
        overlaps ? bound_under_overlap(places, request_, limit_) : lower_bound(flow, windows);
    if (choice_.origin.empty() || choice_.makespan > bound * kTie) {
      bound = std::max(bound, synthesize_on(flow, windows, family, bound, effort));
    }
    choice_.lower_bound = std::min(choice_.lower_bound, bound);
  }

  // Offers the best that the search finds, and returns what no schedule of the flow ends before.
  double synthesize_on(const Flow& flow, const Windows& windows,
                       const std::vector<FamilySchedule>& family, double bound, int64_t effort) {
    std::vector<Draft> starts;
    for (const FamilySchedule& member : family) {
      if (member.schedule.stages == flow.stages) {
        starts.push_back({member.name, programs_of(flow, member.schedule), 0});
      }
    }
    const Found found = synthesize(flow, windows, std::move(starts), bound, effort, request_.seed);
    Schedule schedule = schedule_of(flow, found.best.programs);
    TRIREME_CHECK(check_schedule(schedule).legal);
    TRIREME_CHECK(above_limit(schedule, request_.costs, limit_).empty());
    const double makespan = makespan_of(schedule, request_.costs);
    const std::string origin = "synthesized, from " + found.best.name;
    choice_.considered.push_back({"synthesized", "from " + found.best.name, makespan, ""});
    offer(origin, schedule, makespan);
    return found.optimal && request_.costs.overlap == 0 ? found.best.makespan : bound;
  }

  const AutoRequest& request_;
  const std::vector<double> limit_;
  AutoChoice choice_;
};

}  // namespace

AutoChoice choose_schedule(const AutoRequest& request) {
  check_request(request);
  return Choice(request).run();
}

}  // namespace trireme
