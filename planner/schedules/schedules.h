#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"

namespace trireme {

// A schedule by name. `chunks` is the number of stages per pipeline rank; `group` (interleaved
// only) how many micro-batches pass through one chunk before the next chunk takes over. Without a
// group the best legal one is chosen: least makespan under `costs`, the smaller on a tie.
struct ScheduleRequest {
  std::string name;
  int pipeline = 1;
  int micro_batches = 1;
  int chunks = 1;
  std::optional<int> group = std::nullopt;
  Costs costs = {};
};

// The schedule as data; pure and deterministic. Throws Error(bad_input) when the request is outside
// what the schedule defines (the message says which rule and why), Error(unavailable) for a
// schedule that this version does not build, and Error(bad_input) for a name that no schedule has.
Schedule make_schedule(const ScheduleRequest& request);

// For searches over many layouts, without building a schedule. Names are built ones.
//
// No schedule of this name ends earlier, whatever its group (simulator.h, makespan_bound; naive's
// own time).
double schedule_bound(const std::string& name, int pipeline, int chunks, int micro_batches,
                      const Costs& costs);
// Chunk activations that pipeline rank `rank` holds at its peak, at least; exact but for
// interleaved's choice of group.
//   naive 1; gpipe m; 1f1b min(p-r, m); interleaved min(2(p-1-r) + (v-1)g + 1, mv)
int least_peak_activations(const std::string& name, int pipeline, int chunks, int micro_batches,
                           int rank);

// The groups that a search should try for this schedule: nothing but "no group" where a schedule
// has none. Of interleaved's legal groups the `most` shortest, which hold the fewest activations.
std::vector<std::optional<int>> groups_to_try(const std::string& name, int pipeline,
                                              int micro_batches, size_t most);

// Whether a schedule gives a pipeline rank several stages.
bool takes_chunks(const std::string& name);

// What make_schedule builds, in the order in which plans prefer them on a tie.
std::vector<std::string> built_schedules();

// Interleaved with g micro-batches per group is defined when pipeline <= g <= micro_batches and the
// last group is empty or at least `pipeline` long; with fewer micro-batches than ranks they form
// one group. Ascending, never empty.
std::vector<int> legal_groups(int pipeline, int micro_batches);

}  // namespace trireme
