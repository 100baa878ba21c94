#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "runtime/device/device.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

using ::testing::HasSubstr;

std::string failure_of(const Plan& plan) {
  return message_of(ErrorKind::failed, [&] { run_in_memory(plan); });
}

// A learning rate of 1e30 makes weights whose products are infinite after one update.
TEST(Divergence, EndsATrainingBeforeAnythingIsSaved) {
  Job job = tiny_gpt(5);
  job.training.learning_rate = job.training.min_learning_rate = 1e30;
  job.training.warmup_steps = 0;
  for (const Degrees& degrees : {Degrees{}, Degrees{1, 2, 2, 1, "1f1b", 1}}) {
    EXPECT_THAT(failure_of(plan_for(job, degrees)), HasSubstr("step 2 diverged"))
        << to_string(degrees);
  }
  Job untied = tiny_llama(5);
  untied.training = job.training;
  EXPECT_THAT(failure_of(plan_for(untied, {1, 2, 1, 1, "pipedream", 1})), HasSubstr("diverged"));
}

TEST(Divergence, ALogitThatIsNoNumberMakesALossThatIsNone) {
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  const auto device = make_cpu_device(1);
  std::vector<float> logits = {0.5F, kNone, 1.0F, 0.25F, -3.0F};
  float maximum = 0;
  std::array<float, 2> sums{};  // of the row, and its target's logit
  device->cross_entropy_maximum(&maximum, logits.data(), 1, 5);
  const int32_t target = 3;
  device->cross_entropy_sums(sums.data(), logits.data(), &maximum, &target, 1, 5, 0);
  EXPECT_TRUE(std::isnan(sums[0])) << sums[0];
}

}  // namespace
}  // namespace trireme::test
