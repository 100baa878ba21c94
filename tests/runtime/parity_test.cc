// The keystone: every layout of a tiny model trains to one rank's numbers.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "planner/schedules/schedules.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

// All degrees with tensor in {1,2,4}, pipeline in {1,2,3,4}, data in {1,2,4}, chunks in {1,2}, up
// to 12 ranks, without the schedule.
std::vector<Degrees> all_degrees() {
  std::vector<Degrees> all;
  for (const int tensor : {1, 2, 4}) {
    for (const int pipeline : {1, 2, 3, 4}) {
      for (const int data : {1, 2, 4}) {
        for (const int chunks : {1, 2}) {
          if (tensor * pipeline * data > 12) continue;
          all.push_back({tensor, pipeline, data, chunks, "", 1});
        }
      }
    }
  }
  return all;
}

// Nothing where the schedule is not defined for these degrees.
std::optional<Plan> plan_if_defined(const Job& job, const Degrees& degrees) {
  try {
    return plan_for(job, degrees);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// References, by tensor degree.
std::map<int, RunResult> one_pipeline_rank_and_one_replica(const Job& job) {
  std::map<int, RunResult> reference;
  for (const int tensor : {1, 2, 4}) {
    Degrees alone;
    alone.tensor = tensor;
    reference[tensor] = run_in_memory(plan_for(job, alone));
  }
  return reference;
}

// Two steps: the second shows that the first one's update was the same, too. A schedule that is op
// by op another one of the same degrees is not run twice.
void every_layout_trains_to_one_ranks_numbers(const Job& job) {
  auto reference = one_pipeline_rank_and_one_replica(job);
  std::map<std::string, int> layouts;
  for (Degrees degrees : all_degrees()) {
    std::vector<Schedule> ran;
    for (const auto& schedule : built_schedules()) {
      degrees.schedule = schedule;
      const auto plan = plan_if_defined(job, degrees);
      if (!plan || step_kind(plan->schedule) != StepKind::synchronous) continue;
      ++layouts[schedule];
      const auto same_ops = [&](const Schedule& other) {
        return other.ranks == plan->schedule.ranks && other.stages == plan->schedule.stages;
      };
      if (std::any_of(ran.begin(), ran.end(), same_ops)) continue;
      ran.push_back(plan->schedule);
      expect_same_bits(run_in_memory(*plan), reference[degrees.tensor], to_string(degrees));
    }
  }
  for (const auto& [schedule, count] : layouts) fmt::print("{} {}  ", schedule, count);
  fmt::print("layouts\n");
}

TEST(Parity, EveryLayoutOfATinyGptHasTheBitsOfOnePipelineRankAndOneReplica) {
  every_layout_trains_to_one_ranks_numbers(tiny_gpt(2));
}
TEST(Parity, EveryLayoutOfATinyLlamaHasTheBitsOfOnePipelineRankAndOneReplica) {
  every_layout_trains_to_one_ranks_numbers(tiny_llama(2));
}

// Stages anywhere, both ends of the pipeline on one rank or not, backwards split or not, pairs, any
// order: whatever is legal trains the same weights.
void any_legal_schedule_from_a_file(const Job& job) {
  auto reference = one_pipeline_rank_and_one_replica(job);
  for (uint64_t seed = 0; seed < 48; ++seed) {
    const int pipeline = 1 + static_cast<int>(seed % 4);
    const int data = seed / 4 % 2 == 0 ? 1 : 2;
    const int chunks = 1 + static_cast<int>(seed / 8 % 3 * (pipeline < 4));
    const Degrees degrees{seed % 6 == 1 ? 2 : 1, pipeline, data, chunks, "random", 1};
    const auto schedule = random_schedule(seed, pipeline, chunks, job.training.global_batch / data);
    expect_same_bits(run_in_memory(plan_for(job, degrees, schedule)), reference[degrees.tensor],
                     fmt::format("seed {}, {}", seed, to_string(degrees)));
  }
}

TEST(Parity, AnyLegalScheduleFromAFileTrainsATinyGptToTheSameBits) {
  any_legal_schedule_from_a_file(tiny_gpt(2));
}
TEST(Parity, AnyLegalScheduleFromAFileTrainsATinyLlamaToTheSameBits) {
  any_legal_schedule_from_a_file(tiny_llama(2));
}

TEST(Parity, StagesMayBeUnevenOrHoldNoLayer) {
  for (const Job& job : {tiny_gpt(3), tiny_llama(3)}) {
    const auto reference = run_in_memory(plan_for(job, {}));
    for (const auto& layers : {std::vector<int>{0, 5, 0, 3}, {8, 0, 0, 0}, {0, 0, 0, 8}}) {
      auto whole = plan_for(job, {1, 4, 1, 1, "1f1b", 1});
      cut(whole, layers);
      expect_same_bits(run_in_memory(whole), reference, "1f1b");
      auto split = plan_for(job, {1, 2, 2, 2, "random", 1}, random_schedule(11, 2, 2, 6));
      cut(split, layers);
      expect_same_bits(run_in_memory(split), reference, "random");
    }
  }
}

TEST(Parity, FewerMicroBatchesThanPipelineRanksKeepTheBits) {
  const Job job = tiny_gpt(3);
  for (const int micro_batch : {6, 12}) {
    Degrees alone;
    alone.micro_batch = micro_batch;
    const auto reference = run_in_memory(plan_for(job, alone));
    for (const auto& schedule : built_schedules()) {
      for (const int chunks : {1, 2}) {
        const Degrees degrees{1, 4, 1, chunks, schedule, micro_batch};
        const auto plan = plan_if_defined(job, degrees);
        if (!plan || step_kind(plan->schedule) != StepKind::synchronous) continue;
        expect_same_bits(run_in_memory(*plan), reference, to_string(degrees));
      }
    }
    const Degrees degrees{1, 4, 1, 1, "random", micro_batch};
    const auto schedule = random_schedule(5, 4, 1, 12 / micro_batch);
    expect_same_bits(run_in_memory(plan_for(job, degrees, schedule)), reference, "random");
  }
}

// Replicas that add in place differ in the last bits with their number, but not with the schedule
// as long as micro-batches go back in order.
TEST(Parity, FastReductionDoesNotDependOnTheSchedule) {
  Job job = tiny_llama(3);
  job.training.reduction = Reduction::fast;
  const auto reference = run_in_memory(plan_for(job, {1, 1, 2, 1, "1f1b", 1}));
  for (const auto& schedule : {"naive", "1f1b"}) {
    expect_same_bits(run_in_memory(plan_for(job, {1, 4, 2, 1, schedule, 1})), reference, schedule);
  }
}

// Sums of unequal replicas have another order, so the last bits differ.
void expect_near(const RunResult& run, const RunResult& reference, const std::string& what) {
  ASSERT_EQ(run.reports.size(), reference.reports.size());
  for (size_t i = 0; i < run.reports.size(); ++i) {
    EXPECT_NEAR(run.reports[i].loss, reference.reports[i].loss, 1e-6) << what << ", step " << i;
    EXPECT_NEAR(*run.reports[i].grad_norm / *reference.reports[i].grad_norm, 1, 1e-5)
        << what << ", step " << i;
  }
}

// Replicas on slower devices take fewer micro-batches of a step; 12 samples in all.
TEST(Parity, ReplicasWithUnequalSharesTrainToOneRanksNumbers) {
  for (Job job : {tiny_gpt(3), tiny_llama(3)}) {
    job.training.reduction = Reduction::fast;
    const auto reference = run_in_memory(plan_for(job, {}));
    for (const std::vector<Share>& shares : {std::vector<Share>{{1, 9}, {1, 3}},
                                             {{1, 1}, {1, 11}},
                                             {{2, 2}, {1, 8}},
                                             {{1, 6}, {1, 4}, {1, 2}}}) {
      for (const Degrees& degrees : {Degrees{1, 1, 0, 1, "1f1b", 1},
                                     {1, 2, 0, 1, "1f1b", 1},
                                     {2, 2, 0, 1, "gpipe", 1},
                                     {1, 3, 0, 1, "zb-h1", 1},
                                     {1, 2, 0, 2, "zb-v", 1}}) {
        const std::string what =
            fmt::format("{}, {} shares of which the first has {} micro-batches", to_string(degrees),
                        shares.size(), shares.front().micro_batches);
        expect_near(run_in_memory(with_shares(job, degrees, shares)), reference, what);
      }
    }
  }
}

// The key bias has no gradient at all (softmax does not see a shift), so what is computed for it is
// rounding alone; as in Hugging Face's fused bias it is compared together with its neighbours.
std::map<std::string, std::vector<float>> comparable(
    const std::map<std::string, std::vector<float>>& gradients) {
  std::map<std::string, std::vector<float>> result;
  for (const auto& [name, values] : gradients) {
    const std::string key = ".attention.key.bias";
    const std::string query = ".attention.query.bias";
    const std::string value = ".attention.value.bias";
    std::string target = name;
    for (const auto& part : {key, query, value}) {
      if (name.ends_with(part))
        target = name.substr(0, name.size() - part.size()) + ".attention.qkv.bias";
    }
    auto& joined = result[target];
    joined.insert(joined.end(), values.begin(), values.end());
  }
  return result;
}

void tensor_degrees_stay_within_rounding(Job (*make_job)(int)) {
  RunOptions options;
  options.gradient_steps = 3;
  const auto reference = run_in_memory(plan_for(make_job(20), {}), options);
  double worst_gradient = 0;
  double worst_loss = 0;
  for (const int tensor : {2, 3, 4}) {
    Degrees degrees;
    degrees.tensor = tensor;
    const auto run = run_in_memory(plan_for(make_job(20), degrees), options);
    for (int step = 0; step < 3; ++step) {
      const auto expected = comparable(reference.gradients[step]);
      for (const auto& [name, values] : comparable(run.gradients[step])) {
        const double error = relative_error(values, expected.at(name));
        worst_gradient = std::max(worst_gradient, error);
        EXPECT_LE(error, 2e-6) << "tensor " << tensor << ", step " << step << ", " << name;
      }
    }
    for (size_t i = 0; i < run.reports.size(); ++i) {
      const double error = std::abs(run.reports[i].loss / reference.reports[i].loss - 1);
      worst_loss = std::max(worst_loss, error);
      EXPECT_LE(error, 1e-5) << "tensor " << tensor << ", step " << i;
    }
  }
  fmt::print("largest relative difference: gradients {:.2e}, losses {:.2e}\n", worst_gradient,
             worst_loss);
}

TEST(Parity, TensorDegreesOfATinyGptStayWithinRounding) {
  tensor_degrees_stay_within_rounding(tiny_gpt);
}
TEST(Parity, TensorDegreesOfATinyLlamaStayWithinRounding) {
  tensor_degrees_stay_within_rounding(tiny_llama);
}

TEST(Parity, ThreadsChangeNoBit) {
  RunOptions two;
  two.threads = 2;
  expect_same_bits(run_in_memory(plan_for(tiny_gpt(3), {}), two),
                   run_in_memory(plan_for(tiny_gpt(3), {})), "two threads");
}

TEST(Parity, LargerMicroBatchesKeepTheBitsAcrossPipelineAndData) {
  Degrees alone;
  alone.micro_batch = 3;
  const auto reference = run_in_memory(plan_for(tiny_llama(3), alone));
  for (const Degrees& degrees : {Degrees{1, 2, 2, 1, "1f1b", 3}, Degrees{1, 1, 4, 1, "1f1b", 3},
                                 Degrees{1, 3, 1, 2, "interleaved", 3}}) {
    expect_same_bits(run_in_memory(plan_for(tiny_llama(3), degrees)), reference,
                     to_string(degrees));
  }
}

}  // namespace
}  // namespace trireme::test
