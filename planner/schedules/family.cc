#include "planner/schedules/family.h"

#include <algorithm>

namespace trireme {
namespace {

double loop_bound(const Shape& s, const Costs& costs) {
  return makespan_bound(loop_placement(s.pipeline, s.chunks), s.pipeline, s.micro_batches, costs);
}

// Time along the stages before each rank's first stage, and of each rank's own ops on one
// micro-batch, when an op of stage s takes time_of(s).
struct Along {
  std::vector<double> before, own;
};

template <class TimeOf>
Along along(const std::vector<StagePlace>& places, int pipeline, double hop, TimeOf&& time_of) {
  Along result{std::vector<double>(static_cast<size_t>(pipeline), -1),
               std::vector<double>(static_cast<size_t>(pipeline), 0)};
  double upstream = 0;
  for (size_t stage = 0; stage < places.size(); ++stage) {
    const auto rank = static_cast<size_t>(places[stage].rank);
    if (stage > 0 && places[stage - 1].rank != places[stage].rank) upstream += hop;
    if (result.before[rank] < 0) result.before[rank] = upstream;
    const double time = time_of(static_cast<int>(stage));
    upstream += time;
    result.own[rank] += time;
  }
  return result;
}

// A message that no other delays.
double once(const Costs& costs) {
  return costs.transfer + costs.hop;
}

// With split backwards only input gradients are waited for. A rank first waits for the forwards of
// the stages before its first; then it either works to the end, or after its forwards and input
// gradients the stages before still have theirs to do, and the first stage a weight gradient.
double split_bound(const std::vector<StagePlace>& places, const Shape& shape, const Costs& costs) {
  const auto forward =
      along(places, shape.pipeline, once(costs), [&](int s) { return costs.of_stage(s).forward; });
  const auto input =
      along(places, shape.pipeline, once(costs), [&](int s) { return costs.of_stage(s).input; });
  const auto weight =
      along(places, shape.pipeline, 0, [&](int s) { return costs.of_stage(s).weight; });
  double bound = 0;
  for (size_t rank = 0; rank < forward.own.size(); ++rank) {
    const double begin =
        forward.before[rank] + shape.micro_batches * (forward.own[rank] + input.own[rank]);
    bound = std::max({bound, begin + shape.micro_batches * weight.own[rank],
                      begin + input.before[rank] + costs.of_stage(0).weight});
  }
  return bound;
}

double split_loop_bound(const Shape& s, const Costs& costs) {
  return split_bound(loop_placement(s.pipeline, s.chunks), s, costs);
}

double split_v_bound(const Shape& s, const Costs& costs) {
  return split_bound(v_placement(s.pipeline, s.chunks), s, costs);
}

double pairs_v_bound(const Shape& s, const Costs& costs) {
  return split_bound(v_placement(s.pipeline, s.chunks), s, least_in_pairs(costs));
}

// Nothing overlaps, so a step is all the work of all ranks and every hop.
double naive_time(const Shape& s, const Costs& costs) {
  double micro_batch = 2.0 * (s.pipeline - 1) * once(costs);
  for (int stage = 0; stage < s.pipeline; ++stage) {
    micro_batch += costs.of_stage(stage).forward + costs.of_stage(stage).backward();
  }
  return s.micro_batches * micro_batch;
}

// The slowest rank's forwards after those of the stages before it.
double forward_only_bound(const Shape& s, const Costs& costs) {
  const auto forward = along(loop_placement(s.pipeline, s.chunks), s.pipeline, once(costs),
                             [&](int stage) { return costs.of_stage(stage).forward; });
  double bound = 0;
  for (size_t rank = 0; rank < forward.own.size(); ++rank) {
    bound = std::max(bound, forward.before[rank] + s.micro_batches * forward.own[rank]);
  }
  return bound;
}

using Chunks = FamilyMember::Chunks;

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
                const int group = std::min(s.pipeline, s.micro_batches);
                return std::min(2 * (s.pipeline - 1 - rank) + (s.chunks - 1) * group + 1,
                                s.micro_batches * s.chunks);
              },
          .chunks = Chunks::any,
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
                const int group = std::min(s.pipeline, s.micro_batches);
                return std::min((s.chunks - 1) * group + s.pipeline, s.micro_batches * s.chunks);
              },
          .chunks = Chunks::any,
          .groups = true,
          .warm_up_slope = 1,
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
          .placed_anew = true};
}

FamilyMember v_half() {
  return {
      .name = "v-half",
      .build = [](const Shape& s) { return v_half_schedule(s.pipeline, s.micro_batches); },
      .bound = split_v_bound,
      .least_peak = [](const Shape& s, int) { return least_of_v(s, 2 * ((s.pipeline + 2) / 2)); },
      .chunks = Chunks::v,
      .placed_anew = true};
}

// One begins every six slots and is back 4p - 1 slots later, or two more (v_min_schedule).
int in_flight_of_v_min(const Shape& s) {
  const int back = 4 * s.pipeline - 1 + (s.pipeline % 3 == 0 ? 2 : 0);
  return std::min(s.micro_batches, back / 6 + 1);
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
          .placed_anew = true};
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

const FamilyMember* find_member(const std::string& name) {
  const std::vector<FamilyMember>& family = schedule_family();
  const auto member = std::find_if(family.begin(), family.end(),
                                   [&](const FamilyMember& m) { return name == m.name; });
  return member == family.end() ? nullptr : &*member;
}

}  // namespace trireme
