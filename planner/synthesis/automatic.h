#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "planner/plan/schedule.h"
#include "planner/simulator.h"

namespace trireme {

// What a schedule is wanted for.
struct AutoRequest {
  int pipeline = 1;
  int micro_batches = 1;
  int chunks = 1;  // stages per pipeline rank
  // One stage or all of them, in any unit of time. Costs::op_time must not be set.
  Costs costs = {};
  // Most that a rank may hold, in the unit of Costs::memory: chunk activations where that is empty.
  // One number for all ranks or one for each.
  std::optional<std::vector<double>> memory_limit = std::nullopt;
  uint64_t seed = 1;
  // How many ops the search may time, for all placements together. A count and not a time, so that
  // the same request gives the same schedule everywhere. The default takes about a second on one
  // core where the lower bound is not met, and nothing where the family meets it.
  int64_t effort = 40'000'000;
};

// What was tried, for the reader of the choice.
struct Considered {
  std::string schedule;            // "zb-h1"
  std::string variant;             // "latency-aware"; empty: as it is
  std::optional<double> makespan;  // nothing where it cannot be had
  std::string why_not;             // the reason then

  std::string name() const { return variant.empty() ? schedule : schedule + ", " + variant; }
};

struct AutoChoice {
  Schedule schedule;   // called "auto"
  std::string origin;  // the family member it is, or "synthesized from ..."
  double makespan = 0;
  double lower_bound = 0;  // no schedule on these placements within this limit ends earlier
  std::vector<Considered> considered;

  // By which share the makespan exceeds the lower bound: 0 is proven best.
  double gap() const { return lower_bound > 0 ? makespan / lower_bound - 1 : 0; }
};

// The schedule that ends first for these costs within this memory: the best of all family members
// (schedules.h) with their groups and warm-ups, or one that a search made from it where that ends
// earlier. Never worse than the best family member within the limit. One stage per rank lies in
// order; two are tried in a loop and in a V; more in a loop. Schedules that do another training
// (asynchronous) or none (forward only) are not considered.
//
// To be shown to a user: origin, makespan, lower bound and gap(); on request the considered ones.
//
// Throws Error(bad_input) with the reason where nothing can be found: counts below 1, costs of
// another number of stages, a limit list of another length, or a limit below one activation for
// each stage of a rank (every micro-batch passes all stages before its first is released). Pure and
// deterministic.
AutoChoice choose_schedule(const AutoRequest& request);

}  // namespace trireme
