#include "planner/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "planner/checker.h"
#include "planner/cost/step.h"
#include "planner/layout_text.h"
#include "planner/schedules/schedules.h"
#include "tests/planner/random_space.h"
#include "tests/planner/test_inputs.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

Pins pins(const std::vector<std::string>& keys_and_values) {
  Pins result;
  for (const std::string& text : keys_and_values) set_pin(result, text);
  return result;
}

std::string failure(const Job& job, const Cluster& cluster, ErrorKind kind) {
  try {
    find_plan(job, cluster, {});
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "found a plan";
}

// Whether the layout's schedule can be built for as many micro-batches as each share takes.
bool is_built(const Layout& layout) {
  std::vector<Share> shares = layout.shares;
  if (shares.empty()) shares = {{layout.data, layout.micro_batches}};
  return std::none_of(shares.begin(), shares.end(), [&](const Share& share) {
    return why_not({.name = layout.schedule,
                    .pipeline = layout.pipeline,
                    .micro_batches = share.micro_batches,
                    .chunks = layout.chunks});
  });
}

// Every schedule, number of chunks and choice of options for these degrees.
void add_completions(const Job& job, bool cpu, Layout layout, std::vector<Layout>& result) {
  const auto with_ranks = [&] {
    result.push_back(layout);
    if (layout.recompute == Recompute::none || !layout.shares.empty()) return;
    for (int ranks = 1; ranks < layout.pipeline; ++ranks) {
      const auto is_rank = [&](int eighths) {
        return ranks == (layout.pipeline * eighths + 7) / 8;  // rounded up
      };
      const std::vector<int> eighths = {1, 2, 3, 4, 5, 6, 7};
      if (std::none_of(eighths.begin(), eighths.end(), is_rank)) continue;
      layout.recompute_ranks = ranks;
      result.push_back(layout);
    }
    layout.recompute_ranks = 0;
  };
  const auto with_options = [&] {
    for (const auto recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      if (recompute == Recompute::selective && job.execution.attention != Attention::unfused)
        continue;
      for (const bool sequence_parallel : {false, true}) {
        for (const int sharding : {0, 1}) {
          const bool none = recompute == Recompute::none && !sequence_parallel && sharding == 0;
          if (cpu && !none) continue;
          if (sequence_parallel && layout.tensor == 1) continue;
          if (sharding == 1 && layout.data == 1) continue;
          layout.recompute = recompute;
          layout.sequence_parallel = sequence_parallel;
          layout.optimizer_sharding = sharding;
          with_ranks();
        }
      }
    }
  };
  for (const std::string& schedule : searched_schedules()) {
    if (layout.pipeline == 1 && schedule != "1f1b") continue;
    const int most = layout.pipeline == 1 ? 1 : job.model.layers + 2;
    layout.schedule = schedule;
    // With one chunk they are eager-1f1b and zb-h1.
    const bool several = schedule == "interleaved" || schedule == "interleaved-zb";
    for (layout.chunks = several ? 2 : 1; layout.chunks <= most; ++layout.chunks) {
      if (layout.stages() - 2 > job.model.layers) break;
      if (fixed_chunks(schedule).value_or(layout.chunks) != layout.chunks) continue;
      if (is_built(layout)) with_options();
    }
  }
}

// Everything that could be declared for `job` on this cluster with replicas that are alike, without
// the search's own enumeration: every number is tried for every degree.
std::vector<Layout> all_layouts(const Job& job, const Cluster& cluster) {
  const int devices = cluster.device_count();
  const int batch = job.training.global_batch;
  const bool cpu = cluster.groups.front().device.is_cpu();
  std::vector<Layout> result;
  Layout layout;
  for (layout.tensor = 1; layout.tensor <= job.model.kv_heads; ++layout.tensor) {
    for (layout.pipeline = 1; layout.pipeline <= devices; ++layout.pipeline) {
      for (layout.data = 1; layout.ranks() <= devices; ++layout.data) {
        for (layout.micro_batch = 1; layout.micro_batch <= batch; ++layout.micro_batch) {
          if (batch % (layout.data * layout.micro_batch) != 0) continue;
          layout.micro_batches = batch / (layout.data * layout.micro_batch);
          add_completions(job, cpu, layout, result);
        }
      }
    }
  }
  return result;
}

// Every way in which two kinds of node take whole replicas, as many as they have room for, and
// share out the micro-batches.
std::vector<Layout> all_mixed_layouts(const Job& job, const Cluster& cluster) {
  std::vector<Layout> result;
  if (cluster.groups.size() < 2) return result;
  const int batch = job.training.global_batch;
  Layout layout;
  const auto room = [&](size_t group) {
    const NodeGroup& nodes = cluster.groups[group];
    if (nodes.devices % layout.tensor != 0) return 0;
    return static_cast<int>(nodes.hosts.size()) * nodes.devices / layout.tensor / layout.pipeline;
  };
  for (layout.tensor = 1; layout.tensor <= job.model.kv_heads; ++layout.tensor) {
    for (layout.pipeline = 1; layout.pipeline <= cluster.device_count(); ++layout.pipeline) {
      const int first = room(0), second = room(1);
      if (first == 0 || second == 0) continue;
      layout.data = first + second;
      for (layout.micro_batch = 1; layout.micro_batch <= batch; ++layout.micro_batch) {
        if (batch % layout.micro_batch != 0) continue;
        for (int m = 1; first * m < batch / layout.micro_batch; ++m) {
          const int rest = batch / layout.micro_batch - first * m;
          if (rest % second != 0) continue;
          layout.micro_batches = m;
          layout.shares = {{first, m}, {second, rest / second}};
          add_completions(job, false, layout, result);
        }
      }
    }
  }
  return result;
}

// Every way to place a layout on one or two kinds of node.
std::vector<PlacedLayout> all_placements(const Layout& layout, const Cluster& cluster) {
  const auto room = [&](size_t group, int pipeline_ranks) {
    const NodeGroup& nodes = cluster.groups[group];
    const int ranks = layout.tensor * layout.data * pipeline_ranks;
    return nodes.devices % layout.tensor == 0 &&
           ranks <= static_cast<int>(nodes.hosts.size()) * nodes.devices;
  };
  std::vector<PlacedLayout> result;
  const auto add = [&](const std::vector<Run>& runs) {
    for (const Near near : {Near::data, Near::pipeline}) result.push_back({layout, {runs, near}});
    // Replicas that fill nodes, where a leaf's nodes hold whole pipelines of them.
    if (runs.size() > 1 || cluster.fabric.kind != FabricKind::tree || layout.pipeline == 1) return;
    const int devices = cluster.groups[runs[0].group].devices;
    const int filling = devices / layout.tensor;
    if (filling * layout.tensor != devices || filling == 1) return;
    if (layout.data == filling || layout.data % filling != 0) return;
    if (cluster.fabric.leaf_nodes % layout.pipeline != 0) return;
    result.push_back({layout, {runs, Near::node}});
  };
  for (size_t first = 0; first < cluster.groups.size(); ++first) {
    if (room(first, layout.pipeline)) add({{first, layout.pipeline}});
    const size_t second = 1 - first;
    for (int n = 1; n < layout.pipeline && cluster.groups.size() == 2; ++n) {
      const int rest = layout.pipeline - n;
      if (room(first, n) && room(second, rest)) add({{first, n}, {second, rest}});
    }
  }
  return result;
}

// Whether the group that holds least fits without recomputation.
bool fits_without_recomputation(StepModel& model, PlacedLayout layout) {
  layout.recompute = Recompute::none;
  layout.recompute_ranks = 0;
  const Schedule schedule = make_schedule(
      {.name = layout.schedule,
       .pipeline = layout.pipeline,
       .micro_batches = layout.micro_batches,
       .chunks = layout.chunks,
       .group = groups_to_try(layout.schedule, layout.pipeline, layout.micro_batches, 8).front()});
  const auto memory = model.memory(layout, model.cut(layout), schedule);
  bool fits = true;
  for (int rank = 0; rank < layout.pipeline; ++rank) {
    fits = fits && memory[static_cast<size_t>(rank)].total() <= model.device_memory(layout, rank);
  }
  return fits;
}

// The fastest group of the layout's schedule that fits; endless when none does.
double step_time(StepModel& model, const PlacedLayout& layout, const std::vector<Stage>& stages) {
  double least = 1e30;
  for (const auto& group :
       groups_to_try(layout.schedule, layout.pipeline, layout.micro_batches, 8)) {
    const Schedule schedule = make_schedule({.name = layout.schedule,
                                             .pipeline = layout.pipeline,
                                             .micro_batches = layout.micro_batches,
                                             .chunks = layout.chunks,
                                             .group = group,
                                             .costs = model.costs(layout, stages)});
    const auto memory = model.memory(layout, stages, schedule);
    bool fits = true;
    for (int rank = 0; rank < layout.pipeline; ++rank) {
      fits = fits && memory[static_cast<size_t>(rank)].total() <= model.device_memory(layout, rank);
    }
    if (fits) least = std::min(least, model.predict(layout, stages, shared(schedule)).step_seconds);
  }
  return least;
}

// On the cut that is fastest for the kind whose layers take longest.
double mixed_step_time(StepModel& model, const Layout& layout) {
  const std::vector<ReplicaSet> sets = {{0, layout.shares[0].replicas},
                                        {1, layout.shares[1].replicas}};
  double least = 1e30;
  for (const Near near : {Near::data, Near::pipeline}) {
    const PlacedLayout first = placed_on_sets(layout, sets, near, 0);
    const PlacedLayout second = placed_on_sets(layout, sets, near, 1);
    const bool first_slower = model.layer_seconds(layout, 0) >= model.layer_seconds(layout, 1);
    const std::vector<Stage> stages = model.fastest_cut(first_slower ? first : second);
    least = std::min(least,
                     std::max(step_time(model, first, stages), step_time(model, second, stages)));
  }
  return least;
}

// Of all layouts that fit, each in its best place, simulated without any bound.
std::vector<double> all_step_times(const Job& job, const Cluster& cluster) {
  std::vector<double> seconds;
  StepModel model(job, cluster);
  for (const Layout& layout : all_layouts(job, cluster)) {
    double least = 1e30;
    for (const PlacedLayout& placed : all_placements(layout, cluster)) {
      if (layout.recompute_ranks > 0 && fits_without_recomputation(model, placed)) continue;
      least = std::min(least, step_time(model, placed, model.cut(placed)));
    }
    if (least < 1e30) seconds.push_back(least);
  }
  std::map<std::string, double> mixed;  // of each layout the fastest way to share out
  for (Layout layout : all_mixed_layouts(job, cluster)) {
    const double least = mixed_step_time(model, layout);
    layout.shares.clear();
    double& known = mixed.try_emplace(describe(layout), 1e30).first->second;
    known = std::min(known, least);
  }
  for (const auto& [layout, least] : mixed) {
    if (least < 1e30) seconds.push_back(least);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

void finds_what_trying_everything_finds(unsigned seed) {
  std::mt19937 random(seed);
  int fitting = 0, mixed = 0;
  for (int trial = 0; trial < 100; ++trial) {
    SCOPED_TRACE(trial);
    const auto [job, cluster] = random_space(random);
    const std::vector<double> expected = all_step_times(job, cluster);
    if (expected.empty()) {
      EXPECT_TRUE(std::holds_alternative<NoPlan>(try_plan(job, cluster, {})));
      continue;
    }
    ++fitting;
    const PlanResult result = find_plan(job, cluster, {.top = 4});
    mixed += result.plan.layout.shares.empty() ? 0 : 1;
    EXPECT_NEAR(result.plan.prediction.step_seconds, expected[0], 1e-12);
    ASSERT_EQ(result.alternatives.size(), std::min<size_t>(3, expected.size() - 1));
    for (size_t i = 0; i < result.alternatives.size(); ++i) {
      EXPECT_NEAR(result.alternatives[i].prediction.step_seconds, expected[i + 1], 1e-12);
    }
    EXPECT_TRUE(check_schedule(result.plan.schedule).legal);
    EXPECT_LE(result.evaluated, result.considered);
  }
  EXPECT_GT(fitting, 75);
  EXPECT_GE(mixed, 1);
}

// 200 spaces, in two halves so that both run at once.
TEST(Search, FindsWhatTryingEverythingFinds) {
  finds_what_trying_everything_finds(3);
}
TEST(Search, FindsWhatTryingEverythingFindsInOtherSpaces) {
  finds_what_trying_everything_finds(4);
}

TEST(Search, EveryPinIsHonoured) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 1000, 128), 32);
  job.pins =
      pins({"tensor=2", "pipeline=2", "data=2", "chunks=2", "micro_batch=2", "optimizer_sharding=1",
            "schedule=interleaved", "sequence_parallel=true", "recompute=full"});
  const Plan plan = find_plan(job, round_cluster(2, 4, 80), {}).plan;
  const Layout expected{.tensor = 2,
                        .pipeline = 2,
                        .data = 2,
                        .chunks = 2,
                        .schedule = "interleaved",
                        .micro_batch = 2,
                        .micro_batches = 8,
                        .sequence_parallel = true,
                        .recompute = Recompute::full,
                        .optimizer_sharding = 1};
  EXPECT_EQ(plan.layout, expected);
  ASSERT_EQ(plan.placement.size(), 8u);
  EXPECT_EQ(plan.placement[5], (PlacedRank{"n1", 1}));
}

// 12 samples in micro-batches of 4 are three of them: two or four replicas would leave some out.
TEST(Search, APinnedMicroBatchLeavesNoSampleOut) {
  Job job = gpt2_job(gpt2_model(4, 256, 8, 1000, 128), 12);
  job.pins.micro_batch = 4;
  PlanOptions options{.top = 1000};
  options.keep_rejections = true;
  const PlanResult result = find_plan(job, round_cluster(1, 8, 80), options);
  std::set<int> replicas = {result.plan.layout.data};
  for (const Alternative& other : result.alternatives) replicas.insert(other.layout.data);
  EXPECT_THAT(replicas, testing::IsSubsetOf({1, 3}));
  const bool told = std::any_of(
      result.rejections.first.begin(), result.rejections.first.end(),
      [](const Rejection& rejection) {
        return rejection.reason == "micro-batches of 4 do not divide the 6 samples of a replica";
      });
  EXPECT_TRUE(told);
}

// 45 million ways to share them out; the fastest is found without listing them.
TEST(Search, ManyMicroBatchesAreSharedOutAmongThreeKindsAtOnce) {
  Job job = gpt2_job(gpt2_model(4, 256, 8, 1000, 128), 30000);
  job.pins = pins({"tensor=1", "pipeline=1", "data=3", "micro_batch=1"});
  Cluster cluster = round_cluster(1, 1, 80);
  for (const double speed : {2.0, 3.0}) {
    NodeGroup& group = cluster.groups.emplace_back(cluster.groups.front());
    group.hosts = {"times" + std::to_string(static_cast<int>(speed))};
    group.device.fp32_flops *= speed;
    group.device.memory_bytes_per_s *= speed;
  }
  const Plan plan = find_plan(job, cluster, {.top = 1}).plan;
  int sum = 0;
  for (const Share& share : plan.layout.shares) sum += share.micro_batches;
  EXPECT_EQ(sum, 30000);
}

// It fits without any; asked for, it is recomputed all the same.
TEST(Search, RecomputationOnSomeRanksCanBePinned) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 5000, 128), 16);
  job.pins.pipeline = 4;
  job.pins.recompute = Recompute::full;
  job.pins.recompute_ranks = 1;
  const PlanResult result = find_plan(job, round_cluster(1, 4, 80), {});
  EXPECT_EQ(result.plan.layout.recompute, Recompute::full);
  EXPECT_EQ(result.plan.layout.recompute_ranks, 1);
}

TEST(Search, EveryLayoutOfUpToTwelveRanksCanBePinned) {
  Job job = gpt2_job(gpt2_model(8, 64, 4, 256, 16), 24);
  const Cluster cluster = round_cluster(1, 12, 80);
  for (const int tensor : {1, 2, 3, 4}) {
    for (const int pipeline : {1, 2, 3, 4}) {
      for (const int data : {1, 2, 4}) {
        if (tensor * pipeline * data > 12) continue;
        for (const int chunks : {1, 2}) {
          for (const std::string& schedule : searched_schedules()) {
            if (fixed_chunks(schedule).value_or(chunks) != chunks) continue;
            if (why_not({.name = schedule,
                         .pipeline = pipeline,
                         .micro_batches = 12 / data,
                         .chunks = chunks})) {
              continue;
            }
            job.pins = Pins();
            job.pins.tensor = tensor;
            job.pins.pipeline = pipeline;
            job.pins.data = data;
            job.pins.chunks = chunks;
            job.pins.micro_batch = 2;
            job.pins.schedule = schedule;
            const Plan plan = find_plan(job, cluster, {}).plan;
            EXPECT_EQ(plan.layout.schedule, schedule);
            EXPECT_EQ(plan.layout.ranks(), tensor * pipeline * data);
          }
        }
      }
    }
  }
}

TEST(Search, ContradictingPinsAreNamed) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 1000, 128), 32);
  const Cluster cluster = round_cluster(2, 4, 80);
  job.pins = pins({"chunks=2", "schedule=gpipe"});
  EXPECT_THAT(failure(job, cluster, ErrorKind::bad_input), HasSubstr("schedule=gpipe"));
  job.pins = pins({"chunks=3", "schedule=zb-v"});
  EXPECT_THAT(failure(job, cluster, ErrorKind::bad_input), HasSubstr("two stages"));
  job.pins = pins({"data=4", "micro_batch=3"});
  EXPECT_THAT(failure(job, cluster, ErrorKind::bad_input), HasSubstr("data=4 micro_batch=3"));
  job.pins = pins({"pipeline=4", "chunks=3"});
  EXPECT_THAT(failure(job, cluster, ErrorKind::bad_input), HasSubstr("pipeline=4 chunks=3"));
  job.pins = pins({"tensor=4", "pipeline=4"});
  EXPECT_THAT(failure(job, cluster, ErrorKind::no_layout), HasSubstr("needs 16 devices"));
  job.pins = pins({"tensor=8"});
  EXPECT_THAT(failure(job, cluster, ErrorKind::no_layout), HasSubstr("inside a node"));
}

TEST(Search, ALayoutThatDoesNotFitSaysByHowMuchAndWhere) {
  const Job job = gpt2_job(gpt2_model(8, 2048, 8, 50000, 128), 8);
  EXPECT_THAT(failure(job, round_cluster(1, 2, 2.5), ErrorKind::no_layout),
              HasSubstr("pipeline rank"));
  const PlanResult result =
      find_plan(job, round_cluster(1, 4, 8), {.top = 1, .keep_rejections = true});
  ASSERT_FALSE(result.rejections.first.empty());
  EXPECT_TRUE(
      std::any_of(result.rejections.first.begin(), result.rejections.first.end(),
                  [](const auto& r) { return r.reason.find("lacks") != std::string::npos; }));
}

TEST(Search, RejectionsNameHeadsAndBatch) {
  const Job job = gpt2_job(gpt2_model(8, 256, 2, 1000, 128), 9);
  const PlanResult result =
      find_plan(job, round_cluster(1, 4, 80), {.top = 1, .keep_rejections = true});
  const auto has = [&](const std::string& text) {
    return std::any_of(result.rejections.first.begin(), result.rejections.first.end(),
                       [&](const auto& r) { return r.reason.find(text) != std::string::npos; });
  };
  EXPECT_TRUE(has("2 key-value heads, so 2 ranks would have none"));
  EXPECT_TRUE(has("global_batch 9 is not divisible by 4 replicas"));
}

// A rank of the faster kind takes twice the layers: 18 layers on 2 x (1 + 2) shares are 3 and 6.
TEST(Search, FasterNodesGetMoreLayers) {
  Job job = gpt2_job(gpt2_model(18, 2048, 16, 1000, 1024), 64);
  job.pins = pins({"tensor=1", "pipeline=4", "data=4", "micro_batch=1", "schedule=1f1b"});
  const Plan plan = find_plan(job, two_kinds(2), {}).plan;
  EXPECT_EQ(plan.device.size(), std::string("X + Y").size());
  ASSERT_EQ(plan.stages.size(), 4u);
  std::map<bool, int> layers;  // by whether the node is fast
  for (int p = 0; p < 4; ++p) {
    const std::string& host = plan.placement[4 * static_cast<size_t>(p)].node;
    layers[host.starts_with("fast")] += plan.stages[static_cast<size_t>(p)].layers;
  }
  EXPECT_EQ(layers[true], 12);
  EXPECT_EQ(layers[false], 6);
}

// Without a pipeline each kind takes replicas of its own: eight of devices that do three times as
// much as eight others get three quarters of 96 samples, nine each.
TEST(Search, FasterReplicasGetMoreMicroBatches) {
  Job job = gpt2_job(gpt2_model(8, 2048, 16, 1000, 1024), 96);
  job.pins = pins({"tensor=1", "pipeline=1", "data=16", "micro_batch=1"});
  const Plan plan = find_plan(job, two_kinds(3), {}).plan;
  EXPECT_EQ(plan.layout.micro_batches, plan.layout.shares.at(0).micro_batches);
  std::map<bool, int> micro_batches;  // by whether the node is fast
  for (int d = 0; d < 16; ++d) {
    const Rank rank = rank_at(plan.layout, {0, d, 0});
    const std::string& host = plan.placement[static_cast<size_t>(rank.value)].node;
    micro_batches[host.starts_with("fast")] += plan.layout.micro_batches_of(d);
    EXPECT_EQ(plan.schedule_of(d).micro_batches, plan.layout.micro_batches_of(d));
  }
  EXPECT_EQ(micro_batches[true], 72);
  EXPECT_EQ(micro_batches[false], 24);
  EXPECT_EQ(plan.layout.micro_batches_before(15), 96 - plan.layout.micro_batches_of(15));
  EXPECT_EQ(to_toml(parse_plan(to_toml(plan), "plan.toml")), to_toml(plan));
}

// 16 replicas do not divide 40 samples, but 16 unequal ones take them all.
TEST(Search, UnequalReplicasNeedNotDivideTheBatch) {
  Job job = gpt2_job(gpt2_model(8, 2048, 16, 1000, 1024), 40);
  job.pins = pins({"tensor=1", "pipeline=1", "data=16", "micro_batch=1"});
  const Plan plan = find_plan(job, two_kinds(4), {}).plan;
  ASSERT_EQ(plan.layout.shares.size(), 2u);
  EXPECT_EQ(plan.layout.micro_batches_before(15) + plan.layout.micro_batches_of(15), 40);
  EXPECT_THROW(find_plan(job, round_cluster(2, 8, 80), {}), Error);
}

// Two uplinks of a leaf are shared by eight nodes' worth of messages unless pipelines stay below
// their leaves: replicas fill nodes, since one pipeline's ranks alone would fill none.
TEST(Search, ANarrowSpineKeepsPipelinesBelowTheirLeaves) {
  Job job = gpt2_job(gpt2_model(8, 512, 8, 1000, 1024), 2048);
  job.pins = pins({"tensor=1", "pipeline=2", "data=16", "micro_batch=1", "schedule=1f1b"});
  Cluster cluster = round_cluster(8, 4, 80);
  cluster.fabric = {.kind = FabricKind::tree, .leaf_nodes = 2, .oversubscription = 1000};
  cluster.groups[0].link_bytes_per_s = 1e6;  // so that stages do not want to share a node either
  const Plan plan = find_plan(job, cluster, {}).plan;
  for (int d = 0; d < 16; ++d) {
    for (int p = 0; p < 2; ++p) {
      const Rank rank = rank_at(plan.layout, {0, d, p});
      EXPECT_EQ(plan.placement[static_cast<size_t>(rank.value)],
                (PlacedRank{"n" + std::to_string(2 * (d / 4) + p), d % 4}));
    }
  }
}

// All ranks idle until the longest pipeline is done.
TEST(Search, UnequalReplicasArePredictedShareByShare) {
  Job job = gpt2_job(gpt2_model(8, 2048, 16, 1000, 1024), 96);
  job.pins = pins({"tensor=1", "pipeline=2", "data=8", "micro_batch=1", "schedule=1f1b"});
  const Plan plan = find_plan(job, two_kinds(3), {}).plan;
  const std::vector<Share>& shares = plan.layout.shares;
  ASSERT_EQ(shares.size(), 2u);
  ASSERT_EQ(plan.prediction.other_shares.size(), 1u);
  std::vector<double> makespans;
  double busy = 0;
  for (const int replica : {0, shares[0].replicas}) {
    const PipelineTimes& times = plan.times_of(replica);
    Costs costs{.stages = {}, .hop = times.hop_seconds, .transfer = times.transfer_seconds};
    for (const StagePrediction& stage : times.stages) {
      costs.stages.push_back({stage.forward_seconds, stage.input_seconds, stage.weight_seconds});
      busy += plan.layout.micro_batches_of(replica) *
              (stage.forward_seconds + stage.input_seconds + stage.weight_seconds) / 4;
    }
    makespans.push_back(makespan_of(plan.schedule_of(replica), costs));
  }
  EXPECT_NEAR(makespans[0] + plan.prediction.seconds_after_ops(), plan.prediction.step_seconds,
              1e-12);
  EXPECT_LT(makespans[1], plan.prediction.step_seconds);
  const double longest = std::max(makespans[0], makespans[1]);
  EXPECT_NEAR(plan.prediction.bubble_fraction, 1 - busy / longest, 1e-9);
}

TEST(Search, AnAsynchronousScheduleKeepsReplicasAlike) {
  Job job = gpt2_job(gpt2_model(8, 2048, 16, 1000, 1024), 96);
  job.model.tied_embeddings = false;
  job.pins = pins({"tensor=1", "micro_batch=1", "schedule=pipedream"});
  EXPECT_TRUE(find_plan(job, two_kinds(3), {}).plan.layout.shares.empty());
}

TEST(Search, ATensorGroupHasOneKindOfDevice) {
  Job job = gpt2_job(gpt2_model(16, 2048, 16, 1000, 1024), 64);
  job.pins = pins({"tensor=4", "pipeline=4"});
  const Plan plan = find_plan(job, two_kinds(1.5), {}).plan;
  for (int rank = 0; rank < plan.layout.ranks(); ++rank) {
    const auto first = static_cast<size_t>(rank) / 4 * 4;
    EXPECT_EQ(plan.placement[static_cast<size_t>(rank)].node, plan.placement[first].node);
  }
}

// Four replicas of a pipeline of four on four nodes with one slow NIC each: the messages of 512
// micro-batches cross nodes with the replicas near, none with the pipeline near, when gradients do,
// once a step.
TEST(Search, ASlowNetworkKeepsThePipelineInsideANode) {
  Job job = gpt2_job(gpt2_model(8, 256, 8, 1000, 1024), 2048);
  job.pins = pins({"tensor=1", "pipeline=4", "data=4", "micro_batch=1"});
  Cluster cluster = round_cluster(4, 4, 80);
  cluster.groups[0].nics = 1;
  cluster.groups[0].nic_bytes_per_s = 1e8;
  const Plan plan = find_plan(job, cluster, {}).plan;
  for (int d = 0; d < 4; ++d) {
    for (int p = 0; p < 4; ++p) {
      const Rank rank = rank_at(plan.layout, {0, d, p});
      EXPECT_EQ(plan.placement[static_cast<size_t>(rank.value)],
                (PlacedRank{"n" + std::to_string(d), p}));
    }
  }
}

TEST(Search, NodesThatDoNotHelpStayIdleAndAreNoted) {
  const Cluster cluster = two_kinds(1000);
  const PlanResult result = find_plan(gpt2_job(gpt2_model(8, 1024, 8, 1000, 128), 32), cluster, {});
  EXPECT_EQ(result.plan.placement[0].node, "fast0");
  ASSERT_FALSE(result.notes.empty());
  EXPECT_THAT(result.notes.back(), HasSubstr("n0 to n1) stay idle"));
}

TEST(Search, IsDeterministic) {
  const Job job = gpt2_job(gpt2_model(12, 768, 12, 50257, 1024), 64);
  const Cluster cluster = round_cluster(4, 8, 40);
  EXPECT_EQ(find_plan(job, cluster, {}).plan, find_plan(job, cluster, {}).plan);
}

// A model of 405 billion parameters on 16384 devices.
TEST(Search, SimulatesFewLayoutsOfALargeCluster) {
  Job job = gpt2_job(gpt2_model(126, 16384, 128, 128256, 4096), 2048, Dtype::bf16);
  job.model.family = Family::llama;
  job.model.kv_heads = 8;
  job.model.ffn_hidden = 53248;
  const Cluster cluster = round_cluster(2048, 8, 80);
  const PlanResult result = find_plan(job, cluster, {});
  EXPECT_GT(result.considered, 1000000);
  EXPECT_LT(result.evaluated, 200);
}

}  // namespace
}  // namespace trireme
