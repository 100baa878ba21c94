#pragma once

#include <string>
#include <vector>

#include "planner/schedules/generators.h"
#include "planner/simulator.h"
#include "planner/step_bound.h"

namespace trireme {

// The exact shape of one schedule to build.
struct Shape {
  int pipeline = 1;
  int micro_batches = 1;
  int chunks = 1;
  int group = 1;
  Deeper deeper = {};
};

// What the planner knows of a schedule by name.
struct FamilyMember {
  // How many stages a rank has, and where they lie.
  enum class Chunks { one, any, v };

  const char* name;
  Schedule (*build)(const Shape&);
  // Adds when no schedule of so many stages ends earlier, whatever its group and warm-up.
  void (*bound)(int pipeline, int chunks, const Costs&, StepBound&) = nullptr;
  // What a rank holds at its peak, at least; with groups of this shape's length or longer.
  int (*least_peak)(const Shape&, int rank) = nullptr;
  // Micro-batches that have begun on the first stage and are not back there, as it is built, at
  // most; where that may bound its time.
  int (*most_in_flight)(int pipeline) = nullptr;
  Chunks chunks = Chunks::one;
  // The schedule that it is, op by op, with one chunk and any group; null: a schedule of its own.
  const char* with_one_chunk = nullptr;
  bool groups = false;
  // Forwards of warm-up for each rank that lies behind; 0: there is none to deepen.
  int warm_up_slope = 0;
  // Without such a warm-up, what can be done where hops take time: pairs wait for micro-batches
  // that left longer ago, or all ops are placed anew.
  bool deeper_pairs = false;
  bool placed_anew = false;
  // Weight gradients are ops of their own; a few of them at most where this is false.
  bool splits = false;
  // Weight gradients that wait until the end, for each rank that lies before; -1: full backwards.
  int held_back_slope = -1;
  // Whether plans choose it by themselves: not what trains on old weights, or does not train.
  bool searched = true;

  std::vector<StagePlace> places(int pipeline, int chunk_count) const {
    return chunks == Chunks::v ? v_placement(pipeline, chunk_count)
                               : loop_placement(pipeline, chunk_count);
  }
};

// All names, in the order in which plans prefer them on a tie.
const std::vector<FamilyMember>& schedule_family();

// Adds what follows from how many micro-batches a schedule lets go on before some are back, as it
// is built.
void add_trips(const FamilyMember& member, int pipeline, int chunks, const Costs& costs,
               StepBound& bound);

// nullptr for a name that no schedule has.
const FamilyMember* find_member(const std::string& name);

}  // namespace trireme
