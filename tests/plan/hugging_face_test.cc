#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "planner/plan/job.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using nlohmann::json;

class HuggingFace : public testing::Test {
 public:
  HuggingFace() : path_(testing::TempDir() + "trireme-" + name_of_test() + "/config.json") {
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path());
  }
  ~HuggingFace() override {
    std::filesystem::remove_all(std::filesystem::path(path_).parent_path());
  }

 protected:
  Model read(const std::string& text, int sequence = 0) const {
    std::ofstream(path_) << text;
    return model_from_hugging_face(path_, sequence);
  }

  // The complaint about `base` with `key` set to `value`, without the path in front.
  std::string complaint(json base, const std::string& key, const json& value) const {
    base[key] = value;
    return complaint(base.dump());
  }
  std::string complaint(const std::string& text) const {
    try {
      read(text);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      const std::string message = e.what();
      EXPECT_EQ(message.substr(0, path_.size() + 2), path_ + ": ");
      return message.substr(path_.size() + 2);
    }
    return "no complaint";
  }

  // The files of openai-community/gpt2 and meta-llama/Llama-2-7b-hf, less what says nothing of the
  // model.
  const json gpt2_ = {{"model_type", "gpt2"},
                      {"activation_function", "gelu_new"},
                      {"attn_pdrop", 0.1},
                      {"embd_pdrop", 0.1},
                      {"resid_pdrop", 0.1},
                      {"initializer_range", 0.02},
                      {"layer_norm_epsilon", 1e-5},
                      {"n_ctx", 1024},
                      {"n_embd", 768},
                      {"n_head", 12},
                      {"n_layer", 12},
                      {"n_positions", 1024},
                      {"vocab_size", 50257}};
  const json llama_ = {{"model_type", "llama"},        {"hidden_act", "silu"},
                       {"hidden_size", 4096},          {"initializer_range", 0.02},
                       {"intermediate_size", 11008},   {"max_position_embeddings", 4096},
                       {"num_attention_heads", 32},    {"num_hidden_layers", 32},
                       {"num_key_value_heads", 32},    {"pretraining_tp", 1},
                       {"rms_norm_eps", 1e-5},         {"rope_scaling", nullptr},
                       {"tie_word_embeddings", false}, {"vocab_size", 32000}};

 private:
  static std::string name_of_test() {
    return testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  std::string path_;
};

TEST_F(HuggingFace, Gpt2IsReadWithItsDefaults) {
  const auto model = read(gpt2_.dump());
  const Model expected = {Family::gpt2, 12,   768,  12,   12,   64,    3072,
                          50257,        1024, 1024, true, 1e-5, 10000, 0.02};
  EXPECT_EQ(model, expected);
  EXPECT_EQ(total_parameters(model), 124'439'808);
  EXPECT_EQ(read(gpt2_.dump(), 256).sequence, 256);
}

TEST_F(HuggingFace, LlamaIsRead) {
  const auto model = read(llama_.dump());
  const Model expected = {Family::llama, 32,   4096, 32,    32,   128,   11008,
                          32000,         4096, 4096, false, 1e-5, 10000, 0.02};
  EXPECT_EQ(model, expected);
  EXPECT_EQ(total_parameters(model), 6'738'415'616);
}

TEST_F(HuggingFace, RotaryBaseIsReadInBothForms) {
  auto config = llama_;
  config["rope_theta"] = 500000.0;
  EXPECT_EQ(read(config.dump()).rope_theta, 500000);
  config = llama_;
  config["rope_parameters"] = {{"rope_theta", 500000.0}, {"rope_type", "default"}};
  EXPECT_EQ(read(config.dump()).rope_theta, 500000);
  config["rope_scaling"] = {{"type", "default"}};
  EXPECT_EQ(read(config.dump()).rope_theta, 500000);
}

TEST_F(HuggingFace, WhatCannotBeTrainedIsRefusedByName) {
  EXPECT_EQ(complaint(gpt2_, "activation_function", "relu"),
            "activation_function: found \"relu\", expected gelu_new or gelu_pytorch_tanh");
  EXPECT_EQ(complaint(gpt2_, "scale_attn_by_inverse_layer_idx", true),
            "scale_attn_by_inverse_layer_idx: found true, expected false");
  EXPECT_EQ(complaint(gpt2_, "scale_attn_weights", false),
            "scale_attn_weights: found false, expected true");
  EXPECT_EQ(complaint(gpt2_, "add_cross_attention", true),
            "add_cross_attention: found true, expected false");
  EXPECT_EQ(complaint(llama_, "hidden_act", "gelu"), "hidden_act: found \"gelu\", expected silu");
  EXPECT_EQ(complaint(llama_, "attention_bias", true),
            "attention_bias: found true, expected false");
  EXPECT_EQ(complaint(llama_, "mlp_bias", true), "mlp_bias: found true, expected false");
  EXPECT_EQ(complaint(llama_, "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}),
            "rope_scaling.rope_type: found \"llama3\", expected \"default\"; scaled rotary "
            "positions cannot be trained");
  EXPECT_EQ(complaint(llama_, "rope_scaling", {{"type", "linear"}}),
            "rope_scaling.type: found \"linear\", expected \"default\"; scaled rotary positions "
            "cannot be trained");
  EXPECT_EQ(complaint(llama_, "rope_parameters", {{"rope_type", "yarn"}}),
            "rope_parameters.rope_type: found \"yarn\", expected \"default\"; scaled rotary "
            "positions cannot be trained");
  EXPECT_EQ(complaint(llama_, "quantization_config", {{"bits", 4}}),
            "quantization_config: found quantized weights, expected none: they cannot be trained");
  EXPECT_EQ(complaint(llama_, "model_type", "mistral"),
            "model_type: found \"mistral\", expected \"gpt2\" or \"llama\"");
}

TEST_F(HuggingFace, WrongValuesAreNamed) {
  EXPECT_EQ(complaint("{"), "not a JSON object");
  EXPECT_EQ(complaint("[1]"), "not a JSON object");
  EXPECT_EQ(complaint("{}"), "model_type: found nothing, expected \"gpt2\" or \"llama\"");
  EXPECT_EQ(complaint("{\"model_type\": 3}"), "model_type: found 3, expected a string");
  EXPECT_EQ(complaint(gpt2_, "n_layer", nullptr),
            "n_layer: found nothing, expected an integer from 1 to 100000");
  EXPECT_EQ(complaint(gpt2_, "n_layer", "12"),
            "n_layer: found \"12\", expected an integer from 1 to 100000");
  EXPECT_EQ(complaint(gpt2_, "n_layer", 12.0),
            "n_layer: found 12.0, expected an integer from 1 to 100000");
  EXPECT_EQ(complaint(gpt2_, "n_layer", UINT64_MAX),
            "n_layer: found 18446744073709551615, expected an integer from 1 to 100000");
  EXPECT_EQ(complaint(gpt2_, "n_head", 7),
            "n_head: found 7, expected a divisor of hidden, which is 768");
  EXPECT_EQ(complaint(llama_, "num_key_value_heads", 5),
            "num_key_value_heads: found 5, expected a divisor of heads, which is 32");
  EXPECT_EQ(complaint(llama_, "head_dim", 127),
            "head_dim: found 127, expected an even number, because rotary positions turn pairs");
  EXPECT_EQ(complaint(llama_, "attention_bias", 1),
            "attention_bias: found 1, expected true or false");
  EXPECT_EQ(complaint(llama_, "rope_theta", 0),
            "rope_theta: found 0, expected a number from 1 to 1000000000000000");
  EXPECT_EQ(complaint(llama_, "rope_scaling", 3), "rope_scaling: found 3, expected an object");
}

TEST_F(HuggingFace, ASequenceBeyondTheTableIsRefused) {
  try {
    read(gpt2_.dump(), 2048);
    FAIL();
  } catch (const Error& e) {
    EXPECT_TRUE(std::string(e.what()).ends_with(
        "n_positions: found 1024, expected at least sequence, which is 2048"));
  }
}

TEST_F(HuggingFace, WhatIsWrittenReadsBack) {
  for (const auto& base : {gpt2_, llama_}) {
    auto model = read(base.dump());
    for (const bool tied : {false, true}) {
      model.tied_embeddings = tied;
      EXPECT_EQ(read(to_hugging_face_config(model)), model);
    }
  }
  auto grouped = read(llama_.dump());
  grouped.kv_heads = 8;
  grouped.head_dim = 64;
  grouped.rope_theta = 123456.5;
  EXPECT_EQ(read(to_hugging_face_config(grouped)), grouped);
}

// What transformers dispatches on, and the switches whose defaults there would change the model.
TEST_F(HuggingFace, TheWrittenFileSaysWhatTransformersAsksFor) {
  const auto gpt2 = json::parse(to_hugging_face_config(read(gpt2_.dump())));
  EXPECT_EQ(gpt2.at("architectures"), json::array({"GPT2LMHeadModel"}));
  EXPECT_EQ(gpt2.at("model_type"), "gpt2");
  for (const auto* dropout : {"attn_pdrop", "embd_pdrop", "resid_pdrop"})
    EXPECT_EQ(gpt2.at(dropout), 0.0);
  EXPECT_EQ(gpt2.at("torch_dtype"), "float32");
  const auto llama = json::parse(to_hugging_face_config(read(llama_.dump())));
  EXPECT_EQ(llama.at("architectures"), json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(llama.at("model_type"), "llama");
  EXPECT_EQ(llama.at("num_key_value_heads"), 32);
  EXPECT_EQ(llama.at("head_dim"), 128);
}

TEST_F(HuggingFace, AJobTakesItsDimensionsFromTheFile) {
  read(gpt2_.dump());
  const std::string directory = testing::TempDir() + "trireme-AJobTakesItsDimensionsFromTheFile";
  const std::string training = "[training]\nglobal_batch = 1\nsteps = 1\n";
  const auto by_config = parse_job("[model]\nconfig = \"config.json\"\nsequence = 64\n" + training,
                                   "j.toml", directory);
  EXPECT_EQ(by_config.model.hidden, 768);
  EXPECT_EQ(by_config.model.sequence, 64);
  EXPECT_EQ(by_config.model.positions, 1024);
  const auto by_weights = parse_job("[model]\nweights = \".\"\n" + training, "j.toml", directory);
  EXPECT_EQ(by_weights.model.sequence, 1024);
  EXPECT_FALSE(by_weights.weights.empty());
  // Written out, the dimensions stand in the file and the weights beside them.
  EXPECT_EQ(parse_job(to_toml(by_weights), "j.toml", "/elsewhere"), by_weights);
}

}  // namespace
}  // namespace trireme
