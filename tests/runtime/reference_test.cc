// Against PyTorch: tests/data was made by scripts/make-golden.py with transformers.

#include <gtest/gtest.h>

#include <fmt/format.h>
#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/hugging_face.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

const std::string kData = std::string(TRIREME_SOURCE_DIR) + "/tests/data/";

nlohmann::json golden(const std::string& name) {
  return nlohmann::json::parse(read_text_file(kData + name + ".json"));
}

Job golden_job(const std::string& name, const nlohmann::json& expected) {
  const auto& settings = expected.at("training");
  Job job;
  job.name = name;
  job.model = model_from_hugging_face(kData + name + "/config.json", settings.at("sequence"));
  job.weights = kData + name;
  Training& training = job.training;
  training.global_batch = settings.at("global_batch");
  training.steps = settings.at("steps");
  training.warmup_steps = settings.at("steps");
  training.learning_rate = 3e-4;
  training.weight_decay = 0.1;
  training.beta1 = 0.9;
  training.beta2 = 0.95;
  training.epsilon = 1e-8;
  training.clip_grad = 1.0;
  job.data.path = kData + "tokens.u16";
  job.data.format = DataFormat::u16;
  job.data.order = SampleOrder::sequential;
  return job;
}

// The gradient of a Hugging Face tensor, from ours.
std::vector<float> joined(const HuggingFaceTensor& tensor, const std::vector<int64_t>& shape,
                          const std::map<std::string, std::vector<float>>& ours) {
  std::vector<float> stacked;
  for (const auto& part : tensor.parts) {
    const auto& values = ours.at(part);
    stacked.insert(stacked.end(), values.begin(), values.end());
  }
  if (!tensor.transposed) return stacked;
  const auto columns = static_cast<size_t>(shape[0]);
  const auto rows = static_cast<size_t>(shape[1]);
  std::vector<float> turned(stacked.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) turned[c * rows + r] = stacked[r * columns + c];
  }
  return turned;
}

void follows_pytorch(const std::string& name, const Degrees& degrees) {
  const auto expected = golden(name);
  const Job job = golden_job(name, expected);
  RunOptions options;
  options.gradient_steps = 1;
  const auto run = run_in_memory(plan_for(job, degrees), options);
  double worst = 0;
  for (const auto& step : expected.at("float64").at("steps")) {
    const auto& report = run.reports.at(step.at("step").get<size_t>());
    EXPECT_DOUBLE_EQ(report.learning_rate.value(), step.at("learning_rate").get<double>());
    for (const auto& [found, wanted] :
         {std::pair(report.loss, step.at("loss").get<double>()),
          std::pair(report.grad_norm.value(), step.at("grad_norm").get<double>())}) {
      worst = std::max(worst, std::abs(found / wanted - 1));
      EXPECT_LE(std::abs(found / wanted - 1), 1e-5)
          << name << " step " << report.step << ": " << found << " for " << wanted;
    }
  }
  const SafetensorsFile file(kData + name + "-gradients.safetensors");
  double worst_gradient = 0;
  for (const auto& tensor : hugging_face_tensors(job.model)) {
    const auto& entry = file.tensors().at(tensor.name);
    const auto ours = joined(tensor, entry.shape, run.gradients.at(0));
    std::vector<float> theirs(ours.size());
    file.read(entry, 0, theirs);
    const double error = relative_error(ours, theirs);
    worst_gradient = std::max(worst_gradient, error);
    EXPECT_LE(error, 5e-6) << name << ": gradient of " << tensor.name;
  }
  fmt::print(
      "{}, {}: largest relative difference to float64 PyTorch: losses and norms {:.1e}, first "
      "gradients {:.1e}\n",
      name, to_string(degrees), worst, worst_gradient);
}

TEST(Reference, AGptFollowsPyTorchOnOneRank) {
  follows_pytorch("gpt2-tiny", {});
}
TEST(Reference, ALlamaFollowsPyTorchOnOneRank) {
  follows_pytorch("llama-tiny", {});
}
TEST(Reference, AGptFollowsPyTorchOnTwelveRanks) {
  follows_pytorch("gpt2-tiny", {3, 2, 2, 2, "interleaved", 1});
}
TEST(Reference, ALlamaFollowsPyTorchOnTwelveRanks) {
  follows_pytorch("llama-tiny", {2, 2, 3, 2, "interleaved", 2});
}

}  // namespace
}  // namespace trireme::test
