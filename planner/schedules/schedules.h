#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"
#include "planner/step_bound.h"

namespace trireme {

// A schedule by name, and what may be chosen about it.
struct ScheduleRequest {
  std::string name;
  int pipeline = 1;
  int micro_batches = 1;
  // Stages per pipeline rank; unset: as many as the schedule has, one where it takes any number.
  std::optional<int> chunks = std::nullopt;
  // How many micro-batches pass through one chunk before the next chunk takes over (interleaved,
  // interleaved-zb, forward-only). Unset: the legal group of least makespan under `costs`, the
  // shorter on a tie; interleaved-zb takes m/R where R = max(1, m div p) divides m, unless
  // latency_aware.
  std::optional<int> group = std::nullopt;
  Costs costs = {};
  // So many forwards more before the first backward, on every rank, than the schedule's own: 1 lets
  // a forward and the backward after it overlap, since neither then takes the other's output.
  std::optional<int> warm_up = std::nullopt;
  // Also tries deeper warm-ups, and takes what ends first: the smallest in-flight count that covers
  // the round trip of a micro-batch from rank r to the last rank and back, hops included,
  //   n_r >= [(p-r)(F+B) + 2(p-1-r)hop] / (F+B)                           (whole trip)
  //   n_r  = 1 + (p-1-r) ceil[(F+B + 2hop) / (F+B)]                       (hop by hop)
  // With uneven stages these are sums over the stages from rank r on, divided by the slowest. The V
  // schedules zb-v, v-half and v-min place their ops anew instead (synthesis/placed_anew.h), also
  // with more in flight, and dualpipe-v lets its pairs meet x beats later for each hop,
  //   x = ceil[2hop / (2F+2B)]
  // or fewer for some hops.
  bool latency_aware = false;
  // Most chunk activations that a rank may hold: one for all ranks or one for each. Groups and
  // warm-up are chosen among those that keep it.
  std::optional<std::vector<int>> memory_limit = std::nullopt;
};

// The schedule as data; pure and deterministic. Throws Error(bad_input) when the request is outside
// what the schedule defines or exceeds the memory limit (the message says which rule and why), and
// for a name that no schedule has. "auto", which is not among the built ones, is the best of them
// all or a better one found by search (synthesis/automatic.h).
Schedule make_schedule(const ScheduleRequest& request);

// Throws as make_schedule does for a name that no schedule has.
void require_built(const std::string& name);

// Why a built schedule cannot have this shape, or nothing: for searches. The memory limit is not
// looked at.
std::optional<std::string> why_not(const ScheduleRequest& request);

// For searches over many layouts, without building a schedule. Names are built ones.
//
// No schedule of this name ends earlier, whatever its group and warm-up, unless it is placed anew
// (ScheduleRequest::latency_aware). The costs' `op_time` is not looked at. `at`: the only number of
// micro-batches of interest.
StepBound schedule_bound(const std::string& name, int pipeline, int chunks, const Costs& costs,
                         std::optional<int> at = std::nullopt);
// By pipeline rank: the chunk activations that it holds at its peak, at least.
std::vector<int> least_peak_activations(const std::string& name, int pipeline, int chunks,
                                        int micro_batches);

// From how many micro-batches on a schedule of this name with more of them takes no less time and
// holds no less on any rank, whatever the costs; nothing where that may not be so.
std::optional<int> schedule_grows_from(const std::string& name, int pipeline);

// The groups that a search should try for this schedule: nothing but "no group" where a schedule
// has none. Of the legal groups the `most` shortest, which hold the fewest activations.
std::vector<std::optional<int>> groups_to_try(const std::string& name, int pipeline,
                                              int micro_batches, size_t most);

// The stages per pipeline rank that a schedule always has; nothing where it takes any number.
std::optional<int> fixed_chunks(const std::string& name);

// The schedule that this one is, op by op, when its ranks have one stage each; nothing where it is
// none but itself.
std::optional<std::string> same_with_one_chunk(const std::string& name);

// Whether its weight gradients are ops of their own, all or nearly all.
bool splits_backward(const std::string& name);

// Where the stages of this schedule lie: for one pipeline and chunk count, schedules that agree on
// v_placed put them alike.
bool v_placed(const std::string& name);
std::vector<StagePlace> places_of(const std::string& name, int pipeline, int chunks);

// What make_schedule builds, in the order in which plans prefer them on a tie.
std::vector<std::string> built_schedules();

// Of these the ones that a search for a training plan tries by itself.
std::vector<std::string> searched_schedules();

// Groups of g micro-batches are defined when pipeline <= g <= micro_batches and the last group is
// empty or at least `pipeline` long; with fewer micro-batches than ranks they form one group.
// Ascending, never empty.
std::vector<int> legal_groups(int pipeline, int micro_batches);

}  // namespace trireme
