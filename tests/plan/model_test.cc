#include "planner/plan/model.h"

#include <gtest/gtest.h>

#include "planner/plan/job.h"

namespace trireme {
namespace {

Model shape(Family family, int layers, int hidden, int heads, int vocab, int positions) {
  Model model;
  model.family = family;
  model.layers = layers;
  model.hidden = hidden;
  model.heads = model.kv_heads = heads;
  model.head_dim = hidden / heads;
  model.ffn_hidden = default_ffn_hidden(family, hidden);
  model.vocab = vocab;
  model.sequence = model.positions = positions;
  model.tied_embeddings = family == Family::gpt2;
  return model;
}

// The sizes that the four released models have in transformers.
TEST(Model, Gpt2HasThePublishedParameterCounts) {
  EXPECT_EQ(total_parameters(shape(Family::gpt2, 12, 768, 12, 50257, 1024)), 124'439'808);
  EXPECT_EQ(total_parameters(shape(Family::gpt2, 24, 1024, 16, 50257, 1024)), 354'823'168);
  EXPECT_EQ(total_parameters(shape(Family::gpt2, 36, 1280, 20, 50257, 1024)), 774'030'080);
  EXPECT_EQ(total_parameters(shape(Family::gpt2, 48, 1600, 25, 50257, 1024)), 1'557'611'200);
}

TEST(Model, LlamaHasThePublishedParameterCounts) {
  EXPECT_EQ(total_parameters(shape(Family::llama, 32, 4096, 32, 32000, 4096)),
            6'738'415'616);  // Llama 2 7B
  EXPECT_EQ(total_parameters(shape(Family::llama, 40, 5120, 40, 32000, 4096)),
            13'015'864'320);                                       // Llama 2 13B
  auto llama3 = shape(Family::llama, 32, 4096, 32, 128256, 8192);  // Llama 3 8B
  llama3.kv_heads = 8;
  llama3.ffn_hidden = 14336;
  EXPECT_EQ(total_parameters(llama3), 8'030'261'248);
}

TEST(Model, PartsAddUpToTheWhole) {
  auto model = shape(Family::gpt2, 3, 64, 4, 100, 32);
  for (const bool tied : {false, true}) {
    model.tied_embeddings = tied;
    EXPECT_EQ(total_parameters(model), 3 * layer_parameters(model) + embedding_parameters(model) +
                                           final_norm_parameters(model) + head_parameters(model));
    EXPECT_EQ(head_parameters(model), tied ? 0 : 100 * 64);
  }
  EXPECT_EQ(embedding_parameters(model), (100 + 32) * 64);
  EXPECT_EQ(final_norm_parameters(model), 2 * 64);
}

// 8/3 of 4096 is 10922.7, the next multiple of 256 is 11008: Llama 2 7B's own figure; 13B: 13653.3
// to 13824.
TEST(Model, LlamaFeedForwardWidthIsRoundedUp) {
  EXPECT_EQ(default_ffn_hidden(Family::llama, 4096), 11008);
  EXPECT_EQ(default_ffn_hidden(Family::llama, 5120), 13824);
  EXPECT_EQ(default_ffn_hidden(Family::llama, 128), 352);  // 341.3 to a multiple of 32
  EXPECT_EQ(default_ffn_hidden(Family::llama, 96), 256);   // exactly 8/3
  EXPECT_EQ(default_ffn_hidden(Family::gpt2, 768), 3072);
}

TEST(Model, FaultsNameTheFieldAndBothSides) {
  const auto good = shape(Family::gpt2, 2, 64, 4, 100, 32);
  EXPECT_FALSE(find_fault(good).has_value());
  const auto fault = [](Model model) {
    const auto found = find_fault(model);
    return found ? found->field + ": " + found->found_and_expected : "none";
  };
  auto model = good;
  model.heads = 5;
  EXPECT_EQ(fault(model), "heads: found 5, expected a divisor of hidden, which is 64");
  model = good;
  model.kv_heads = 3;
  EXPECT_EQ(fault(model), "kv_heads: found 3, expected a divisor of heads, which is 4");
  model = good;
  model.head_dim = 8;
  EXPECT_EQ(fault(model), "head_dim: found 8, expected 16 (hidden / heads) for gpt2");
  model = good;
  model.positions = 31;
  EXPECT_EQ(fault(model), "positions: found 31, expected at least sequence, which is 32");
  model = shape(Family::llama, 2, 64, 4, 100, 32);
  model.head_dim = 15;
  EXPECT_EQ(fault(model),
            "head_dim: found 15, expected an even number, because rotary positions turn pairs");
}

}  // namespace
}  // namespace trireme
