// The keystone: every layout of a tiny model trains to one rank's numbers.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

// All degrees with tensor in {1,2,4}, pipeline in {1,2,3,4}, data in {1,2,4}, chunks in {1,2}, up
// to 12 ranks, and the schedules that fit them.
std::vector<Degrees> all_layouts() {
  std::vector<Degrees> layouts;
  for (const int tensor : {1, 2, 4}) {
    for (const int pipeline : {1, 2, 3, 4}) {
      for (const int data : {1, 2, 4}) {
        if (tensor * pipeline * data > 12) continue;
        for (const char* schedule : {"naive", "gpipe", "1f1b", "interleaved"}) {
          const bool interleaved = std::string(schedule) == "interleaved";
          for (const int chunks : {1, 2}) {
            if (interleaved != (chunks == 2)) continue;
            if (pipeline * chunks > 8) continue;  // layers
            layouts.push_back({tensor, pipeline, data, chunks, schedule, 1});
          }
        }
      }
    }
  }
  return layouts;
}

void expect_same_bits(const RunResult& run, const RunResult& reference, const std::string& what) {
  ASSERT_EQ(run.reports.size(), reference.reports.size());
  for (size_t i = 0; i < run.reports.size(); ++i) {
    EXPECT_EQ(run.reports[i].loss, reference.reports[i].loss) << what << ", loss of step " << i;
    EXPECT_EQ(run.reports[i].grad_norm, reference.reports[i].grad_norm)
        << what << ", gradient norm of step " << i;
  }
  for (const auto& [name, values] : reference.weights) {
    const auto found = run.weights.find(name);
    ASSERT_NE(found, run.weights.end()) << what << " lacks " << name;
    EXPECT_TRUE(found->second == values) << what << ": " << name << " differs";
  }
}

void every_layout_trains_to_one_ranks_numbers(Job (*make_job)(int)) {
  std::map<int, RunResult> reference;  // by tensor degree
  for (const int tensor : {1, 2, 4}) {
    Degrees alone;
    alone.tensor = tensor;
    reference[tensor] = run_in_memory(plan_for(make_job(4), alone));
  }
  for (const auto& degrees : all_layouts()) {
    const auto run = run_in_memory(plan_for(make_job(4), degrees));
    expect_same_bits(run, reference[degrees.tensor], to_string(degrees));
  }
}

TEST(Parity, EveryLayoutOfATinyGptHasTheBitsOfOnePipelineRankAndOneReplica) {
  every_layout_trains_to_one_ranks_numbers(tiny_gpt);
}
TEST(Parity, EveryLayoutOfATinyLlamaHasTheBitsOfOnePipelineRankAndOneReplica) {
  every_layout_trains_to_one_ranks_numbers(tiny_llama);
}

// The key bias has no gradient at all (softmax does not see a shift), so what is computed for it is
// rounding alone; as in Hugging Face's fused bias it is compared together with its neighbours.
std::map<std::string, std::vector<float>> comparable(
    std::map<std::string, std::vector<float>> gradients) {
  std::map<std::string, std::vector<float>> result;
  for (auto& [name, values] : gradients) {
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
