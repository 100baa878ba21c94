// Would the parity tests notice? Each deliberate fault must move the numbers well beyond what they
// allow.

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

constexpr double kAllowed = 1e-5;  // what the parity tests allow between tensor degrees

double difference(std::optional<double> found, std::optional<double> wanted) {
  return std::abs(found.value() / wanted.value() - 1);
}

// Loses one message in the life of the run: the receiver gets zeros, so one rank's share of one sum
// is dropped.
class LosingTransport final : public Transport {
 public:
  LosingTransport(std::unique_ptr<Transport> inner, int lost)
      : inner_(std::move(inner)), left_(lost) {}
  Rank rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    if (left_-- == 0) {
      const auto zeros = std::make_shared<std::vector<float>>(data.size(), 0.0F);
      inner_->send(to, tag, *zeros, zeros);
      return;
    }
    inner_->send(to, tag, data, std::move(keep));
  }
  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    return inner_->receive(from, tag, into);
  }

 private:
  std::unique_ptr<Transport> inner_;
  int left_;
};

// By which the two ranks of a group first agree on the data; what is lost of it is no wrong number,
// but seen at once.
constexpr int kDataMessages = 1;

TEST(Mutation, AShareDroppedFromOneTensorSumIsSeenInTheLoss) {
  Degrees degrees;
  degrees.tensor = 2;
  const Plan plan = plan_for(tiny_gpt(2), degrees);
  const auto good = run_in_memory(plan);
  for (const int lost : {kDataMessages + 1, kDataMessages + 5, kDataMessages + 10}) {
    RunOptions options;
    options.wrap = [lost](std::unique_ptr<Transport> inner) -> std::unique_ptr<Transport> {
      const bool first = inner->rank() == Rank(0);
      return std::make_unique<LosingTransport>(std::move(inner), first ? lost : -1);
    };
    const auto bad = run_in_memory(plan, options);
    EXPECT_GT(difference(bad.reports[0].grad_norm, good.reports[0].grad_norm), kAllowed)
        << "message " << lost;
  }
}

TEST(Mutation, AGradientLostBetweenReplicasIsSeenInTheNorm) {
  Degrees degrees;
  degrees.data = 2;
  const Plan plan = plan_for(tiny_llama(1), degrees);
  RunOptions options;
  options.wrap = [](std::unique_ptr<Transport> inner) -> std::unique_ptr<Transport> {
    const bool first = inner->rank() == Rank(0);
    return std::make_unique<LosingTransport>(std::move(inner), first ? kDataMessages : -1);
  };
  const auto good = run_in_memory(plan).reports[0].grad_norm;
  EXPECT_GT(difference(run_in_memory(plan, options).reports[0].grad_norm, good), kAllowed);
}

TEST(Mutation, AReplicatedNormWeightCountedTwiceIsSeenInTheNorm) {
  Degrees degrees;
  degrees.tensor = 2;
  RunOptions options;
  options.mutations.count_replicated_norms_on_every_tensor_rank = true;
  const Plan plan = plan_for(tiny_llama(1), degrees);
  const auto good = run_in_memory(plan).reports[0].grad_norm;
  EXPECT_GT(difference(run_in_memory(plan, options).reports[0].grad_norm, good), kAllowed);
}

TEST(Mutation, ASkippedTiedEmbeddingSumIsSeenInNormAndLoss) {
  for (const int pipeline : {1, 2}) {
    Degrees degrees;
    degrees.pipeline = pipeline;
    RunOptions options;
    options.mutations.skip_tied_embedding_sum = true;
    const Plan plan = plan_for(tiny_gpt(8), degrees);
    const auto good = run_in_memory(plan);
    const auto bad = run_in_memory(plan, options);
    EXPECT_GT(difference(bad.reports[0].grad_norm, good.reports[0].grad_norm), kAllowed)
        << pipeline;
    EXPECT_GT(difference(bad.reports[7].loss, good.reports[7].loss), kAllowed) << pipeline;
  }
}

}  // namespace
}  // namespace trireme::test
