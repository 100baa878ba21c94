#include "planner/explain.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "planner/layout_text.h"
#include "tests/planner/test_inputs.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

Pins pinned(std::initializer_list<const char*> list) {
  Pins pins;
  for (const char* pin : list) set_pin(pins, pin);
  return pins;
}

// Eight devices in a node, a small model: every degree up to eight is possible.
class Explained : public testing::Test {
 protected:
  Explanation ask(std::initializer_list<const char*> list) const {
    return explain(job_, cluster_, find_plan(job_, cluster_, {}), pinned(list));
  }
  Plan plan() const { return find_plan(job_, cluster_, {}).plan; }

  Job job_ = gpt2_job(gpt2_model(8, 1024, 8, 1000, 128), 32);
  Cluster cluster_ = round_cluster(1, 8, 80);
};

TEST_F(Explained, ThePlansOwnChoiceIsTheChosenOne) {
  const Layout layout = plan().layout;
  const std::string tensor = "tensor=" + std::to_string(layout.tensor);
  EXPECT_EQ(ask({tensor.c_str()}).standing, Standing::chosen);
  EXPECT_EQ(ask({}).standing, Standing::chosen);
}

// Every degree that can be pinned: never faster than the plan, and the causes account for the
// difference to the last bit that sums of doubles keep.
TEST_F(Explained, CausesSumToWhatAnAlternativeLoses) {
  const Plan best = plan();
  int slower = 0;
  for (const char* key : {"tensor", "pipeline", "data"}) {
    for (int degree = 1; degree <= 8; degree *= 2) {
      const std::string pin = std::string(key) + "=" + std::to_string(degree);
      SCOPED_TRACE(pin);
      const Explanation answer = ask({pin.c_str()});
      ASSERT_TRUE(answer.best.has_value());
      const double lost = answer.best->prediction.step_seconds - best.prediction.step_seconds;
      double sum = 0;
      for (const CauseChange& change : answer.changes) sum += change.seconds;
      EXPECT_NEAR(sum, lost, 1e-9 * best.prediction.step_seconds);
      EXPECT_TRUE(std::is_sorted(
          answer.changes.begin(), answer.changes.end(),
          [](const CauseChange& a, const CauseChange& b) { return a.seconds > b.seconds; }));
      EXPECT_GE(lost, 0);
      slower += answer.standing == Standing::slower ? 1 : 0;
    }
  }
  EXPECT_GE(slower, 6);
}

// Communication alone: on links of a hundredth of the speed, splitting every product loses by the
// all-reduces.
TEST_F(Explained, ASlowLinkIsNamedAsTheCause) {
  cluster_.groups[0].link_bytes_per_s /= 100;
  const Explanation answer = ask({"tensor=8"});
  ASSERT_EQ(answer.standing, Standing::slower);
  EXPECT_EQ(answer.changes.front().cause, "tensor_communication");
}

// A pin of what the search leaves out may win; here the plan's own pin is the bad one.
TEST_F(Explained, APlanWithABadPinLosesToTheAlternative) {
  cluster_.groups[0].link_bytes_per_s /= 100;
  job_.pins = pinned({"tensor=8"});
  EXPECT_EQ(ask({"tensor=1"}).standing, Standing::faster);
}

constexpr std::initializer_list<const char*> kUnsaved = {"tensor=1", "pipeline=1",
                                                         "optimizer_sharding=0", "recompute=none"};

// GPT of 8 layers of hidden 1024 and its embedding: about 8 x 12 x 1024^2 = 100 M parameters, 16
// bytes each with gradients and moments, so 1.6 GB and the reserve of 1.5 GB on one device; 2.6 GB
// hold a part of it.
TEST_F(Explained, WhatDoesNotFitIsToldByRankAndPart) {
  cluster_ = round_cluster(1, 8, 2.6);
  const Explanation answer = ask(kUnsaved);
  ASSERT_EQ(answer.standing, Standing::does_not_fit);
  ASSERT_TRUE(answer.miss.has_value());
  const Miss& miss = *answer.miss;
  EXPECT_EQ(miss.layout.tensor, 1);
  EXPECT_EQ(miss.layout.pipeline, 1);
  EXPECT_EQ(miss.pipeline_rank, 0);
  EXPECT_EQ(miss.device_bytes, 2.6e9);
  EXPECT_GT(miss.missing_bytes(), 0);
  EXPECT_NEAR(miss.needed.parameters, 4.0 * static_cast<double>(total_parameters(job_.model)),
              0.01 * miss.needed.parameters);
  double sum = 0;
  for (const auto& [name, bytes] : named_parts(miss.needed)) sum += bytes;
  EXPECT_EQ(sum, miss.needed.total());
  EXPECT_FALSE(answer.best.has_value());
}

// With memory enough the step is what a device of that memory would take.
TEST_F(Explained, WhatDoesNotFitIsTimedAsIfItDid) {
  cluster_ = round_cluster(1, 8, 2.6);
  const Explanation answer = ask(kUnsaved);
  ASSERT_TRUE(answer.unfit.has_value());
  job_.pins = pinned(kUnsaved);
  const std::string micro_batch = "micro_batch=" + std::to_string(answer.miss->layout.micro_batch);
  const std::string data = "data=" + std::to_string(answer.miss->layout.data);
  set_pin(job_.pins, micro_batch);
  set_pin(job_.pins, data);
  cluster_ = round_cluster(1, 8, 1000);
  EXPECT_EQ(plan().prediction.step_seconds, answer.unfit->step_seconds);
}

// The moments are half of the state, so sharing them among replicas is enough here; a remedy is a
// plan that fits.
TEST_F(Explained, RemediesFit) {
  cluster_ = round_cluster(1, 8, 2.6);
  const Explanation answer = ask(kUnsaved);
  ASSERT_FALSE(answer.remedies.empty());
  for (const Remedy& remedy : answer.remedies) {
    EXPECT_EQ(remedy.best.layout.pipeline, 1);
    for (const double bytes : remedy.best.prediction.memory_bytes_per_pipeline_rank) {
      EXPECT_LE(bytes, 2.6e9) << remedy.pins;
    }
  }
  EXPECT_THAT(answer.remedies.back().pins, HasSubstr("optimizer_sharding=1"));
}

TEST_F(Explained, WhatCannotBeIsToldByItsRule) {
  const Explanation too_wide = ask({"tensor=16"});
  EXPECT_EQ(too_wide.standing, Standing::impossible);
  EXPECT_THAT(too_wide.rule, HasSubstr("tensor ranks stay inside a node, which has 8 devices"));
  const Explanation contradiction = ask({"schedule=1f1b", "chunks=2"});
  EXPECT_EQ(contradiction.standing, Standing::impossible);
  EXPECT_THAT(contradiction.rule, HasSubstr("pins contradict each other"));
  const Explanation odd = ask({"data=3"});
  EXPECT_EQ(odd.standing, Standing::impossible);
  EXPECT_THAT(odd.rule, HasSubstr("global_batch = 32"));
}

TEST(NoPlanFound, IsAValueWithTheClosestMiss) {
  const Job job = gpt2_job(gpt2_model(8, 1024, 8, 1000, 128), 32);
  const auto answer = try_plan(job, round_cluster(1, 8, 0.5), {});
  ASSERT_TRUE(std::holds_alternative<NoPlan>(answer));
  const NoPlan& none = std::get<NoPlan>(answer);
  ASSERT_TRUE(none.closest.has_value());
  EXPECT_THAT(none.reason, HasSubstr(describe(none.closest->layout)));
  EXPECT_EQ(none.rule, "");
}

}  // namespace
}  // namespace trireme
