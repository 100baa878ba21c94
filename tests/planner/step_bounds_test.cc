#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "planner/candidates.h"
#include "planner/cost/step.h"
#include "planner/schedules/least_held.h"
#include "planner/schedules/schedules.h"
#include "tests/planner/random_space.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

// Every stage but the ends holds a layer; the others lie anywhere.
std::vector<Stage> random_cut(int layers, const std::vector<StagePlace>& places,
                              std::mt19937& random) {
  std::vector<Stage> stages =
      cut_layers(fewest_layers(static_cast<int>(places.size()), 1), places, PartTimes{});
  for (int left = layers - fewest_layers(static_cast<int>(places.size()), 1); left > 0; --left) {
    ++stages[random() % stages.size()].layers;
  }
  int first = 0;
  for (Stage& stage : stages) {
    stage.first_layer = first;
    first += stage.layers;
  }
  return stages;
}

int up_to(int most, std::mt19937& random) {
  return 1 + static_cast<int>(random() % static_cast<unsigned>(most));
}

// A few pipeline ranks on some of the kinds; none where no kind has room.
PlacedLayout random_layout(const Cluster& cluster, std::mt19937& random) {
  PlacedLayout layout;
  layout.data = up_to(2, random);
  layout.pipeline = 0;
  layout.placement.runs.clear();
  for (size_t group = 0; group < cluster.groups.size(); ++group) {
    const int most = pipeline_capacity(layout, cluster.groups[group]);
    if (most == 0 || random() % 3 == 0) continue;
    layout.placement.runs.push_back({group, up_to(std::min(most, 4), random)});
    layout.pipeline += layout.placement.runs.back().pipeline_ranks;
  }
  layout.micro_batch = up_to(4, random);
  layout.micro_batches = up_to(9, random);
  layout.optimizer_sharding = layout.data > 1 && random() % 2 == 0 ? 1 : 0;
  layout.recompute = random() % 2 == 0 ? Recompute::full : Recompute::none;
  if (layout.recompute == Recompute::full && layout.pipeline > 1) {
    layout.recompute_ranks = up_to(layout.pipeline, random) - 1;
  }
  return layout;
}

// The same nodes with just the memory that the ranks on them need.
Cluster just_fitting(Cluster cluster, const PlacedLayout& layout,
                     const std::vector<MemoryParts>& memory) {
  for (const Run& run : layout.placement.runs) cluster.groups[run.group].device.memory_bytes = 0;
  for (int rank = 0; rank < layout.pipeline; ++rank) {
    double& there = cluster.groups[layout.run_of(rank).group].device.memory_bytes;
    there = std::max(there, memory[static_cast<size_t>(rank)].total());
  }
  return cluster;
}

// After so many runs.
PlacedLayout with_all_room(PlacedLayout layout, const Cluster& cluster, size_t settled) {
  std::vector<Run>& runs = layout.placement.runs;
  for (size_t i = settled; i < runs.size(); ++i) {
    runs[i].pipeline_ranks = pipeline_capacity(layout, cluster.groups[runs[i].group]);
  }
  return layout;
}

// The same layers on every rank, evenly on its chunks but on the first and the last.
std::vector<Stage> evened(std::vector<Stage> stages) {
  std::map<int, std::vector<size_t>> of_rank;
  for (size_t s = 0; s < stages.size(); ++s) of_rank[stages[s].pipeline_rank].push_back(s);
  for (const auto& [rank, own] : of_rank) {
    if (rank == 0 || rank == of_rank.rbegin()->first) continue;
    int layers = 0;
    for (const size_t s : own) layers += stages[s].layers;
    const int chunks = static_cast<int>(own.size());
    for (int chunk = 0; chunk < chunks; ++chunk) {
      stages[own[static_cast<size_t>(chunk)]].layers = split_evenly(layers, chunks, chunk).size();
    }
  }
  int first = 0;
  for (Stage& stage : stages) {
    stage.first_layer = first;
    first += stage.layers;
  }
  return stages;
}

LeastHeld least_held(const Job& job, const Layout& layout, const std::vector<Completion>& of) {
  LeastHeld held(layout.pipeline, std::min(layout.micro_batches, 3 * layout.pipeline),
                 job.model.layers);
  for (const auto& [schedule, chunks] : of) held.add(schedule, chunks);
  return held;
}

// Calls back with layouts, cuts and schedules of random jobs on random kinds of node.
template <class Callback>
void for_random_cuts(int trials, Callback callback) {
  std::mt19937 random(7);
  for (int trial = 0; trial < trials; ++trial) {
    const auto [job, cluster] = random_space(random);
    PlacedLayout layout = random_layout(cluster, random);
    if (layout.pipeline == 0) continue;
    for (const std::string& name : built_schedules()) {
      layout.schedule = name;
      layout.chunks = fixed_chunks(name).value_or(up_to(3, random));
      const ScheduleRequest request{.name = name,
                                    .pipeline = layout.pipeline,
                                    .micro_batches = layout.micro_batches,
                                    .chunks = layout.chunks};
      if (why_not(request) || fewest_layers(layout.pipeline, layout.chunks) > job.model.layers) {
        continue;
      }
      const auto cut =
          random_cut(job.model.layers, places_of(name, layout.pipeline, layout.chunks), random);
      SCOPED_TRACE(fmt::format("{}: {} of {} ranks", trial, name, layout.pipeline));
      callback(job, cluster, layout, cut, make_schedule(request));
    }
  }
}

// However the layers are cut, whatever the kinds of node, and with any schedule.
TEST(StepBounds, HoldForAnyCutOnKindsOfNode) {
  int held = 0, by_trips = 0, by_messages = 0, by_the_network = 0;
  for_random_cuts(2000, [&](const Job& job, const Cluster& cluster, PlacedLayout layout,
                            const std::vector<Stage>& cut, const Schedule& schedule) {
    StepModel model(job, cluster);
    for (const Near near : near_choices(layout, cluster)) {
      layout.placement.near = near;
      const double allowed = model.predict(layout, cut, shared(schedule)).step_seconds * (1 + 1e-9);
      QuickBound bound = model.quick_bounds(layout);
      const double quick = bound.seconds(layout.micro_batches);
      const double between_runs = model.quick_bound(layout, model.least_message(layout));
      const double network = model.network_bound(layout);
      ASSERT_LE(quick, allowed);
      ASSERT_LE(between_runs, allowed);
      ASSERT_LE(network, allowed);
      ASSERT_LE(model.cut_bound(layout, model.cut_times(layout, cut)), allowed);
      bound.trips.clear();
      by_trips += bound.seconds(layout.micro_batches) < quick ? 1 : 0;
      by_messages += quick < between_runs ? 1 : 0;
      by_the_network += quick < network ? 1 : 0;
      ++held;
    }
  });
  EXPECT_GT(held, 5000);
  EXPECT_GT(by_trips, 1000);
  EXPECT_GT(by_messages, 500);
  EXPECT_GT(by_the_network, 1000);
}

// A schedule of one's own may have all stages of a rank in a row, so that it sends one message
// where the built ones send one for each chunk.
TEST(StepBounds, HoldForStagesThatLieElsewhere) {
  const Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 4);
  Cluster cluster = round_cluster(2, 1, 80);
  cluster.groups[0].nic_bytes_per_s = 1e7;  // messages are what takes time
  Schedule own{"own", 4, {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, {{}, {}}};
  for (const int rank : {0, 1}) {
    for (int i = 0; i < 4; ++i) {
      for (const int chunk : {0, 1}) {
        own.ranks[static_cast<size_t>(rank)].push_back(
            {OpKind::forward, false, 2 * rank + chunk, i});
      }
    }
    for (int i = 0; i < 4; ++i) {
      for (const int chunk : {1, 0}) {
        own.ranks[static_cast<size_t>(rank)].push_back(
            {OpKind::backward, false, 2 * rank + chunk, i});
      }
    }
  }
  StepModel model(job, cluster, nullptr, &own);
  const PlacedLayout placed =
      placed_on({.pipeline = 2, .chunks = 2, .schedule = "own", .micro_batches = 4}, 0);
  const std::vector<Stage> cut = model.cut(placed);
  const double allowed = model.predict(placed, cut, shared(own)).step_seconds * (1 + 1e-9);
  EXPECT_LE(model.cut_bound(placed, model.cut_times(placed, cut)), allowed);
  EXPECT_LE(model.network_bound(placed), allowed);
}

// On nodes that have no byte more than a schedule takes on such a cut: the bounds of all layouts
// that begin with its runs, and hold with this schedule or with any.
TEST(StepBounds, OfWhatFitsHoldWhereACutJustFits) {
  int held = 0, by_memory = 0, by_what_is_held = 0;
  for_random_cuts(6000, [&](const Job& job, const Cluster& cluster, const PlacedLayout& layout,
                            const std::vector<Stage>& any_cut, const Schedule& schedule) {
    const std::vector<Stage> cut = evened(any_cut);
    const Cluster tight =
        just_fitting(cluster, layout, StepModel(job, cluster).memory(layout, cut, schedule));
    StepModel model(job, tight);
    const double allowed = model.predict(layout, cut, shared(schedule)).step_seconds * (1 + 1e-9);
    const Completion own{layout.schedule, layout.chunks};
    std::vector<Completion> all = possible_completions(job, layout.pipeline);
    all.push_back(own);
    const LeastHeld with_any = least_held(job, layout, all),
                    with_own = least_held(job, layout, {own}), one_at_a_time(1, 1, 1);
    const size_t runs = layout.placement.runs.size();
    for (size_t settled = 0; settled <= runs; ++settled) {
      const PlacedLayout open = with_all_room(layout, tight, settled);
      ASSERT_LE(model.fitting_bound(open, settled, with_any), allowed);
      ASSERT_LE(model.fitting_bound(open, settled, with_own), allowed);
      ++held;
    }
    const double least = model.fitting_bound(layout, runs, one_at_a_time);
    by_memory += model.quick_bound(layout) < least ? 1 : 0;
    by_what_is_held += least < model.fitting_bound(layout, runs, with_own) ? 1 : 0;
  });
  EXPECT_GT(held, 10000);
  EXPECT_GT(by_memory, 100);
  EXPECT_GT(by_what_is_held, 100);
}

// On nodes with so little memory that some layouts fit and others do not.
TEST(StepBounds, WhatSurelyFitsDoesOnItsFastestCutWithAnySchedule) {
  int sure = 0, unsure = 0;
  std::mt19937 random(11);
  for_random_cuts(6000, [&](const Job& job, Cluster cluster, PlacedLayout layout,
                            const std::vector<Stage>&, const Schedule& schedule) {
    layout.recompute_ranks = 0;
    for (NodeGroup& group : cluster.groups) group.device.memory_bytes = up_to(16, random) * 1e9;
    StepModel model(job, cluster);
    PlacedLayout open = layout;  // on the same groups
    for (auto& run : open.placement.runs) run.pipeline_ranks = 1;
    if (!model.surely_fits(open)) {
      ++unsure;
      return;
    }
    ++sure;
    const auto memory = model.memory(layout, model.fastest_cut(layout), schedule);
    for (int rank = 0; rank < layout.pipeline; ++rank) {
      ASSERT_LE(memory[static_cast<size_t>(rank)].total(), model.device_memory(layout, rank));
    }
  });
  EXPECT_GT(sure, 1000);
  EXPECT_GT(unsure, 1000);
}

double longest(const std::vector<Trip>& trips, double micro_batches) {
  double most = 0;
  for (const Trip& trip : trips) most = std::max(most, trip.seconds(micro_batches));
  return most;
}

// Of a pipeline of so many ranks on the slower nodes, then so many on the faster.
PlacedLayout on_both(int slow, int fast) {
  PlacedLayout layout;
  layout.pipeline = slow + fast;
  layout.placement.runs = {{0, slow}, {1, fast}};
  return layout;
}

// If n of 12 layers (which need not be whole) lie on the fast ranks and the others on the slow
// ones, a step takes what a micro-batch takes on its way, and what its m micro-batches take on the
// ranks of either kind. The shortest by all n is what trips and work say together.
TEST(StepBounds, ATripIsTheShortestThatSharesOutTheLayers) {
  const Job job = gpt2_job(gpt2_model(12, 512, 8, 100, 128), 8);
  const Cluster cluster = two_kinds(3);
  StepModel model(job, cluster);
  const Costs costs = model.costs(on_both(2, 2), even_cut(12, loop_placement(4, 1)));
  const StageCost slow = times(1.0 / 3, costs.of_stage(1)),
                  fast = times(1.0 / 3, costs.of_stage(2));
  const StageCost all_fast =
      model.costs(placed_on({}, 1), even_cut(12, loop_placement(1, 1))).of_stage(0);
  const double ends = all_fast.forward + all_fast.input - 12 * (fast.forward + fast.input);
  const auto work = [](const StageCost& cost) { return cost.forward + cost.backward(); };
  for (int ranks = 2; ranks <= 8; ++ranks) {
    for (int slow_ranks = std::max(1, ranks - 4); slow_ranks <= std::min(4, ranks - 1);
         ++slow_ranks) {
      for (const int m : {1, 2, 3, 8}) {
        SCOPED_TRACE(fmt::format("{} of {} ranks slow, {} micro-batches", slow_ranks, ranks, m));
        const double slow_each = m * work(slow) / slow_ranks;
        const double fast_each = m * work(fast) / (ranks - slow_ranks);
        double shortest = 1e30;
        for (int part = 0; part <= 12 * 1024; ++part) {
          const double n = part / 1024.0;
          const double way =
              ends + (12 - n) * (slow.forward + slow.input) + n * (fast.forward + fast.input);
          shortest = std::min(shortest, std::max({way, (12 - n) * slow_each, n * fast_each}));
        }
        std::vector<Trip> there_and_back = model.trips(on_both(slow_ranks, ranks - slow_ranks));
        std::erase_if(there_and_back, [](const Trip& trip) { return trip.each > 0; });
        const double all_work = 12 / (1 / slow_each + 1 / fast_each);
        EXPECT_NEAR(std::max(longest(there_and_back, m), all_work) / shortest, 1, 1e-3);
      }
    }
  }
}

// Of pipelines of four ranks that have one to three on either kind.
TEST(StepBounds, TripsOfAllSpreadsAreNoLongerThanOfAny) {
  const Job job = gpt2_job(gpt2_model(12, 512, 8, 100, 128), 8);
  const Cluster cluster = two_kinds(3);
  StepModel model(job, cluster);
  PlacedLayout any = on_both(3, 3);
  any.pipeline = 4;
  for (int slow = 1; slow <= 3; ++slow) {
    for (int m = 1; m <= 8; ++m) {
      const double of_any = longest(model.trips(any), m);
      EXPECT_LE(of_any, longest(model.trips(on_both(slow, 4 - slow)), m)) << slow << ' ' << m;
      EXPECT_GT(of_any, 0);
    }
  }
}

}  // namespace
}  // namespace trireme
