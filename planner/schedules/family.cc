#include "planner/schedules/family.h"

#include <algorithm>

namespace trireme {
namespace {

using Chunks = FamilyMember::Chunks;

// A message to a stage from the one before it, or to that one, which no other delays.
double message(const std::vector<StagePlace>& places, size_t from, size_t to, const Costs& costs) {
  const LinkCost link = costs.of_link(places[from].rank, places[to].rank);
  return link.transfer + link.hop;
}

// With full backwards some rank needs the fill before its first op (the forwards of the stages
// before its first), all its own work, and the drain after its last backward (the stages before do
// theirs). Of each of its chunks and those after it, the same holds from the stage of that chunk
// on, which is more where there are fewer micro-batches than ranks. Where pairs overlap, an op may
// be hidden for half of `overlap` of its time.
void loop_bound(int pipeline, int chunks, const Costs& costs, StepBound& bound) {
  const std::vector<StagePlace> places = loop_placement(pipeline, chunks);
  const double shown = 1 - costs.overlap / 2;
  std::vector<double> fill_and_drain;
  double upstream = 0;
  for (size_t stage = 0; stage < places.size(); ++stage) {
    if (stage > 0) {
      upstream += message(places, stage - 1, stage, costs);
      upstream += message(places, stage, stage - 1, costs);
    }
    fill_and_drain.push_back(upstream);
    const StageCost& cost = costs.of_stage(static_cast<int>(stage));
    upstream += cost.forward + cost.backward();
  }
  std::vector<double> work(static_cast<size_t>(pipeline), 0);
  for (size_t stage = places.size(); stage-- > 0;) {
    const StageCost& cost = costs.of_stage(static_cast<int>(stage));
    double& of_rank = work[static_cast<size_t>(places[stage].rank)];
    of_rank += (cost.forward + cost.backward()) * shown;
    bound.add(fill_and_drain[stage], of_rank);
  }
}

// With split backwards only input gradients are waited for. A rank first waits for the forwards of
// the stages before its first; then it either works to the end, or after its forwards and input
// gradients the stages before still have theirs to do, and the first stage a weight gradient. The
// latter also holds of a rank's later chunks alone.
void split_bound(const std::vector<StagePlace>& places, int pipeline, const Costs& costs,
                 StepBound& bound) {
  struct Rank {
    double first_forward = 0;
    double passes = 0, weights = 0;  // of a micro-batch, both passes together
  };
  struct Before {
    double forwards = 0, inputs = 0;
  };
  std::vector<Before> before;
  Before sum;
  for (size_t stage = 0; stage < places.size(); ++stage) {
    if (stage > 0) {
      sum.forwards += message(places, stage - 1, stage, costs);
      sum.inputs += message(places, stage, stage - 1, costs);
    }
    before.push_back(sum);
    const StageCost& cost = costs.of_stage(static_cast<int>(stage));
    sum.forwards += cost.forward;
    sum.inputs += cost.input;
  }
  const double last_weight = costs.of_stage(0).weight;
  std::vector<Rank> ranks(static_cast<size_t>(pipeline));
  for (size_t stage = places.size(); stage-- > 0;) {
    const StageCost& cost = costs.of_stage(static_cast<int>(stage));
    Rank& rank = ranks[static_cast<size_t>(places[stage].rank)];
    rank.first_forward = before[stage].forwards;
    rank.passes += cost.forward + cost.input;
    rank.weights += cost.weight;
    bound.add(before[stage].forwards + before[stage].inputs + last_weight, rank.passes);
  }
  for (const Rank& rank : ranks) bound.add(rank.first_forward, rank.passes + rank.weights);
}

void split_loop_bound(int pipeline, int chunks, const Costs& costs, StepBound& bound) {
  split_bound(loop_placement(pipeline, chunks), pipeline, costs, bound);
}

void split_v_bound(int pipeline, int chunks, const Costs& costs, StepBound& bound) {
  split_bound(v_placement(pipeline, chunks), pipeline, costs, bound);
}

void pairs_v_bound(int pipeline, int chunks, const Costs& costs, StepBound& bound) {
  split_bound(v_placement(pipeline, chunks), pipeline, least_in_pairs(costs), bound);
}

// Nothing overlaps, so a step is all the work of all ranks and every hop.
void naive_time(int pipeline, int, const Costs& costs, StepBound& bound) {
  const std::vector<StagePlace> places = loop_placement(pipeline, 1);
  double micro_batch = 0;
  for (size_t stage = 0; stage < places.size(); ++stage) {
    if (stage > 0) {
      micro_batch += message(places, stage - 1, stage, costs);
      micro_batch += message(places, stage, stage - 1, costs);
    }
    const StageCost& cost = costs.of_stage(static_cast<int>(stage));
    micro_batch += cost.forward + cost.backward();
  }
  bound.add(0, micro_batch);
}

// The slowest rank's forwards after those of the stages before it.
void forward_only_bound(int pipeline, int chunks, const Costs& costs, StepBound& bound) {
  struct Rank {
    double before = -1, own = 0;
  };
  std::vector<Rank> ranks(static_cast<size_t>(pipeline));
  const std::vector<StagePlace> places = loop_placement(pipeline, chunks);
  double upstream = 0;
  for (size_t stage = 0; stage < places.size(); ++stage) {
    Rank& rank = ranks[static_cast<size_t>(places[stage].rank)];
    if (stage > 0) upstream += message(places, stage - 1, stage, costs);
    if (rank.before < 0) rank.before = upstream;
    upstream += costs.of_stage(static_cast<int>(stage)).forward;
    rank.own += costs.of_stage(static_cast<int>(stage)).forward;
  }
  for (const Rank& rank : ranks) bound.add(rank.before, rank.own);
}

// What a stage does for a micro-batch while others wait for it, both passes together.
double passes(const FamilyMember& member, const StageCost& cost) {
  return cost.forward + (member.splits ? cost.input : cost.backward());
}

// From each stage through all behind it and back, for a micro-batch that waits for nothing.
std::vector<double> trips_from_stages(const FamilyMember& member, int pipeline, int chunks,
                                      const Costs& costs) {
  const std::vector<StagePlace> places = member.places(pipeline, chunks);
  std::vector<double> trips(places.size(), 0);
  double trip = 0;
  for (size_t stage = places.size(); stage-- > 0;) {
    trip += passes(member, costs.of_stage(static_cast<int>(stage)));
    trips[stage] = trip;
    if (stage == 0) break;
    trip += message(places, stage - 1, stage, costs) + message(places, stage, stage - 1, costs);
  }
  return trips;
}

// With so many micro-batches in flight at most, the first of each so many cannot begin before the
// first one before them is back. After a warm-up of one forward more a rank does a backward and a
// forward in turn, but for weight gradients that may be held back. Of all ranks the one counts that
// has a place in flight taken for longest.
StepBound::Trips trips_in_turn(const FamilyMember& member, int pipeline, const Costs& costs) {
  const std::vector<double> trips = trips_from_stages(member, pipeline, 1, costs);
  const auto in_flight = [&](int rank) { return member.warm_up_slope * (pipeline - 1 - rank) + 1; };
  const auto of_place = [&](int rank) {
    return trips[static_cast<size_t>(rank)] / in_flight(rank);
  };
  int longest = 0;
  for (int rank = 1; rank < pipeline; ++rank) {
    if (of_place(rank) > of_place(longest)) longest = rank;
  }
  const double trip = trips[static_cast<size_t>(longest)];
  return {.trip = trip,
          .in_flight = in_flight(longest),
          .between = passes(member, costs.of_stage(longest)),
          .fixed = trips.front() - trip};
}

FamilyMember one_forward_one_backward() {
  return {.name = "1f1b",
          .build =
              [](const Shape& s) {
                return one_forward_one_backward_schedule(s.pipeline, s.micro_batches, s.deeper);
              },
          .bound = loop_bound,
          .least_peak = [](const Shape& s,
                           int rank) { return std::min(s.pipeline - rank, s.micro_batches); },
          .warm_up_slope = 1};
}

FamilyMember interleaved() {
  return {.name = "interleaved",
          .build =
              [](const Shape& s) {
                return interleaved_schedule(s.pipeline, s.micro_batches, s.chunks, s.group,
                                            s.deeper);
              },
          .bound = loop_bound,
          .least_peak =
              [](const Shape& s, int rank) {
                return std::min(2 * (s.pipeline - 1 - rank) + (s.chunks - 1) * s.group + 1,
                                s.micro_batches * s.chunks);
              },
          .chunks = Chunks::any,
          .with_one_chunk = "eager-1f1b",
          .groups = true,
          .warm_up_slope = 2};
}

FamilyMember gpipe() {
  return {.name = "gpipe",
          .build = [](const Shape& s) { return gpipe_schedule(s.pipeline, s.micro_batches); },
          .bound = loop_bound,
          .least_peak = [](const Shape& s, int) { return s.micro_batches; }};
}

FamilyMember naive() {
  return {.name = "naive",
          .build = [](const Shape& s) { return naive_schedule(s.pipeline, s.micro_batches); },
          .bound = naive_time,
          .least_peak = [](const Shape&, int) { return 1; }};
}

FamilyMember eager() {
  return {
      .name = "eager-1f1b",
      .build = [](const Shape& s) { return eager_schedule(s.pipeline, s.micro_batches, s.deeper); },
      .bound = loop_bound,
      .least_peak = [](const Shape& s,
                       int rank) { return std::min(2 * (s.pipeline - rank) - 1, s.micro_batches); },
      .warm_up_slope = 2};
}

FamilyMember breadth_first() {
  return {.name = "breadth-first",
          .build =
              [](const Shape& s) {
                return breadth_first_schedule(s.pipeline, s.micro_batches, s.chunks);
              },
          .bound = loop_bound,
          .least_peak = [](const Shape& s, int) { return s.micro_batches * s.chunks; },
          .chunks = Chunks::any};
}

FamilyMember zb_h1() {
  return {
      .name = "zb-h1",
      .build = [](const Shape& s) { return zb_h1_schedule(s.pipeline, s.micro_batches, s.deeper); },
      .bound = split_loop_bound,
      .least_peak = [](const Shape& s, int) { return std::min(s.pipeline, s.micro_batches); },
      .warm_up_slope = 1,
      .splits = true,
      .held_back_slope = 1};
}

FamilyMember interleaved_zb() {
  return {.name = "interleaved-zb",
          .build =
              [](const Shape& s) {
                return interleaved_zb_schedule(s.pipeline, s.micro_batches, s.chunks, s.group,
                                               s.deeper);
              },
          .bound = split_loop_bound,
          .least_peak =
              [](const Shape& s, int) {
                return std::min((s.chunks - 1) * s.group + s.pipeline, s.micro_batches * s.chunks);
              },
          .chunks = Chunks::any,
          .with_one_chunk = "zb-h1",
          .groups = true,
          .warm_up_slope = 1,
          .splits = true,
          .held_back_slope = 1};
}

FamilyMember zb_h2() {
  return {
      .name = "zb-h2",
      .build = [](const Shape& s) { return zb_h2_schedule(s.pipeline, s.micro_batches, s.deeper); },
      .bound = split_loop_bound,
      .least_peak = [](const Shape& s,
                       int) { return std::min(2 * s.pipeline - 1, s.micro_batches); },
      .warm_up_slope = 2,
      .splits = true,
      .held_back_slope = 2};
}

// A micro-batch that turns round holds both its chunks.
int least_of_v(const Shape& s, int most) {
  return std::min(most, s.micro_batches + 1);
}

FamilyMember zb_v() {
  return {.name = "zb-v",
          .build = [](const Shape& s) { return zb_v_schedule(s.pipeline, s.micro_batches); },
          .bound = split_v_bound,
          .least_peak = [](const Shape& s, int) { return least_of_v(s, 2 * s.pipeline); },
          .chunks = Chunks::v,
          .placed_anew = true,
          .splits = true};
}

FamilyMember v_half() {
  return {
      .name = "v-half",
      .build = [](const Shape& s) { return v_half_schedule(s.pipeline, s.micro_batches); },
      .bound = split_v_bound,
      .least_peak = [](const Shape& s, int) { return least_of_v(s, 2 * ((s.pipeline + 2) / 2)); },
      .chunks = Chunks::v,
      .placed_anew = true,
      .splits = true};
}

// One begins every six slots and is back 4p - 1 slots later, or two more (v_min_schedule).
int in_flight_of_v_min(int pipeline) {
  const int back = 4 * pipeline - 1 + (pipeline % 3 == 0 ? 2 : 0);
  return back / 6 + 1;
}

FamilyMember v_min() {
  return {.name = "v-min",
          .build = [](const Shape& s) { return v_min_schedule(s.pipeline, s.micro_batches); },
          .bound = split_v_bound,
          // Some ranks hold one less than the most.
          .least_peak = [](const Shape& s,
                           int) { return least_of_v(s, 2 * ((s.pipeline + 4) / 3) - 1); },
          .most_in_flight = in_flight_of_v_min,
          .chunks = Chunks::v,
          .placed_anew = true,
          .splits = true};
}

FamilyMember dualpipe_v() {
  return {
      .name = "dualpipe-v",
      .build =
          [](const Shape& s) { return dualpipe_v_schedule(s.pipeline, s.micro_batches, s.deeper); },
      .bound = pairs_v_bound,
      .least_peak = [](const Shape& s, int) { return 2 * s.pipeline; },
      .chunks = Chunks::v,
      .deeper_pairs = true};
}

FamilyMember pipedream() {
  return {
      .name = "pipedream",
      .build =
          [](const Shape& s) { return pipedream_schedule(s.pipeline, s.micro_batches, s.deeper); },
      .bound = loop_bound,
      .least_peak = [](const Shape& s,
                       int rank) { return std::min(s.pipeline - rank, s.micro_batches); },
      .warm_up_slope = 1,
      .searched = false};
}

FamilyMember forward_only() {
  return {.name = "forward-only",
          .build =
              [](const Shape& s) {
                return forward_only_schedule(s.pipeline, s.micro_batches, s.chunks, s.group);
              },
          .bound = forward_only_bound,
          .least_peak = [](const Shape&, int) { return 1; },
          .chunks = Chunks::any,
          .groups = true,
          .searched = false};
}

}  // namespace

const std::vector<FamilyMember>& schedule_family() {
  static const std::vector<FamilyMember> family = {one_forward_one_backward(),
                                                   interleaved(),
                                                   gpipe(),
                                                   naive(),
                                                   eager(),
                                                   breadth_first(),
                                                   zb_h1(),
                                                   interleaved_zb(),
                                                   zb_h2(),
                                                   zb_v(),
                                                   v_half(),
                                                   v_min(),
                                                   dualpipe_v(),
                                                   pipedream(),
                                                   forward_only()};
  return family;
}

void add_trips(const FamilyMember& member, int pipeline, int chunks, const Costs& costs,
               StepBound& bound) {
  if (member.chunks == Chunks::one && member.warm_up_slope > 0) {
    bound.add_trips(trips_in_turn(member, pipeline, costs));
  } else if (member.most_in_flight != nullptr) {
    bound.add_trips({.trip = trips_from_stages(member, pipeline, chunks, costs).front(),
                     .in_flight = member.most_in_flight(pipeline)});
  }
}

const FamilyMember* find_member(const std::string& name) {
  const std::vector<FamilyMember>& family = schedule_family();
  const auto member = std::find_if(family.begin(), family.end(),
                                   [&](const FamilyMember& m) { return name == m.name; });
  return member == family.end() ? nullptr : &*member;
}

}  // namespace trireme
