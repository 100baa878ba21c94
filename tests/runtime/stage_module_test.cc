// What a stage holds on its device between the passes of a micro-batch. R rows, in floats per row;
// the tiny models have hidden 24, attention width 24, ffn 50 and 257 words.

#include "runtime/model/stage_module.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/comm/memory_transport.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

class OneStage {
 public:
  OneStage(const Model& model, const Stage& stage)
      : transport_(world_.transport(Rank(0))),
        group_(make_message_communicator(*transport_, {Rank(0)}, 0)),
        module_(*device_, *group_, setup_for(model, stage)),
        tokens_(model.sequence, 3),
        gradients_(device_->allocate(module_.parameters().gradient_count)),
        empty_(device_->held_bytes()) {
    for (const auto& spec : module_.parameters().specs)
      initialize(spec, 1, module_.weights() + spec.offset);
    module_.weights_changed();
  }

  // Floats held beyond the stage's own weights and gradients.
  size_t held() const { return (device_->held_bytes() - empty_) / sizeof(float); }

  StageModule& module() { return module_; }
  void forward(int m = 0) { module_.forward(m, boundary(), tokens_, tokens_); }
  void evaluate() { module_.evaluate(0, boundary(), tokens_, tokens_); }
  void backward_input() { module_.backward_input(0, boundary()); }
  void backward_weight() {
    module_.backward_weight(0, target(), [](int) {});
  }
  void backward(int m = 0) {
    module_.backward(m, boundary(), target(), [](int) {});
  }

 private:
  static StageModule::Setup setup_for(const Model& model, const Stage& stage) {
    StageModule::Setup setup;
    setup.model = model;
    setup.stage = stage;
    return setup;
  }
  Activation boundary() {
    auto x = device_->activation(module_.boundary_floats());
    for (size_t i = 0; i < x->size(); ++i) x->data()[i] = static_cast<float>(i % 7) - 3;
    return x;
  }
  GradientTarget target() { return {gradients_.data(), false}; }

  MemoryWorld world_{1};
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Communicator> group_;
  StageModule module_;
  std::vector<int32_t> tokens_;
  Buffer gradients_;
  size_t empty_;
};

struct Held {
  size_t after_forward;
  size_t after_input_gradient;
};

void holds(const Model& model, const Stage& stage, const Held& expected) {
  OneStage split(model, stage);
  split.forward();
  EXPECT_EQ(split.held(), expected.after_forward);
  split.backward_input();
  EXPECT_EQ(split.held(), expected.after_input_gradient);
  split.backward_weight();
  EXPECT_EQ(split.held(), 0U);
  OneStage whole(model, stage);
  whole.forward();
  whole.backward();
  EXPECT_EQ(whole.held(), 0U);
  OneStage passing(model, stage);
  passing.evaluate();
  EXPECT_EQ(passing.held(), 0U);
}

constexpr size_t kRows = 16;

// F: two inputs of norms 2*24 with their statistics 2*2, what the norms gave 2*24, query, key and
// value 72, log-sums of 6 heads, attended 24, before and after the activation function 2*50.
// I: of each of the four products its input and the gradient of its output: (24, 72), (24, 24),
// (24, 50), (50, 24), and two rows of 2*24 for the norms' weights.
TEST(StageModule, AGptLayerKeepsAfterInputGradientsOnlyWhatWeightGradientsNeed) {
  holds(tiny_gpt(1).model, {0, 0, 3, 1, false, false},
        {kRows * (48 + 4 + 48 + 72 + 6 + 24 + 100), kRows * (96 + 48 + 74 + 74) + 96});
}

// Llama: 3 key-value heads make 48 of query, key and value; gate and up are 100; norms have no
// bias.
TEST(StageModule, ALlamaLayerKeepsAfterInputGradientsOnlyWhatWeightGradientsNeed) {
  holds(tiny_llama(1).model, {0, 0, 3, 1, false, false},
        {kRows * (48 + 4 + 48 + 48 + 6 + 24 + 150), kRows * (72 + 48 + 124 + 74) + 48});
}

// The head keeps the gradient of the logits and its input; the final norm's input and statistics
// go.
TEST(StageModule, AHeadKeepsTheGradientOfItsLogitsUntilTheWeightGradient) {
  holds(tiny_gpt(1).model, {0, 0, 8, 0, false, true},
        {kRows * (24 + 2 + 24 + 257), kRows * (24 + 257) + 48});
}

// An embedding needs nothing but its tokens, which are host memory, until its gradient arrives.
TEST(StageModule, AnEmbeddingKeepsTheGradientOfItsOutput) {
  holds(tiny_gpt(1).model, {0, 0, 0, 0, true, false}, {0, kRows * 24});
}

// 1F1B with n in flight and an update after every backward: the n micro-batches use n versions, the
// newest of which the next one takes.
TEST(StageModule, KeepsAsManyVersionsOfItsWeightsAsMicroBatchesAreInFlight) {
  for (const int in_flight : {1, 2, 4}) {
    OneStage stage(tiny_gpt(1).model, {0, 0, 3, 1, false, false});
    for (int i = 0; i < 12; ++i) {
      stage.forward(i);
      EXPECT_EQ(stage.module().version(i), std::max(0, i - (in_flight - 1)));
      if (i < in_flight - 1) continue;
      stage.backward(i - (in_flight - 1));
      stage.module().next_weights();
      stage.module().weights_changed();
      EXPECT_LE(stage.module().kept_versions(), in_flight);
    }
    EXPECT_EQ(stage.module().kept_versions(), in_flight);
  }
}

TEST(StageModule, AnEmptyStageKeepsNothing) {
  holds(tiny_gpt(1).model, {0, 0, 3, 0, false, false}, {0, 0});
}

}  // namespace
}  // namespace trireme::test
