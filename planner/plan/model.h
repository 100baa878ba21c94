#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace trireme {

enum class Family {
  gpt2,   // learned positions, LayerNorm, biases, GELU in its tanh form, as many key-value heads
  llama,  // rotary positions, RMSNorm, no biases, SwiGLU, grouped queries
};

// A decoder-only transformer by its dimensions.
struct Model {
  Family family = Family::gpt2;
  int layers = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;    // fewer than heads: grouped queries
  int head_dim = 0;    // hidden / heads unless stated
  int ffn_hidden = 0;  // 4 * hidden for gpt2
  int vocab = 0;
  int sequence = 0;   // tokens per sample in training
  int positions = 0;  // gpt2: rows of the learned position table, at least `sequence`; llama: only
                      // told to others
  bool tied_embeddings = false;
  double norm_epsilon = 1e-5;
  double rope_theta = 10000;
  double init_std = 0.02;

  bool operator==(const Model&) const = default;
};

const char* name_of(Family family);

// The first dimension that does not go with the others: which field of Model, and what was found
// and expected in words.
struct ModelFault {
  std::string field;
  std::string found_and_expected;
};
std::optional<ModelFault> find_fault(const Model& model);

// What a model file leaves out. Llama: 8/3 of hidden, rounded up to a multiple of 256 (of 32 for
// small models), which keeps the three matrices of SwiGLU at the size of the usual two (Touvron et
// al. 2023, section 2.2).
int default_ffn_hidden(Family family, int hidden);

// Trainable parameters: of one transformer layer, of the token (and position) embedding, of the
// final norm, of the output head (0 when tied), and of all.
int64_t layer_parameters(const Model& model);
int64_t embedding_parameters(const Model& model);
int64_t final_norm_parameters(const Model& model);
int64_t head_parameters(const Model& model);
int64_t total_parameters(const Model& model);

}  // namespace trireme
