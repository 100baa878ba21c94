#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "planner/plan/job.h"
#include "planner/plan/limits.h"

namespace trireme {
namespace {

using nlohmann::json;

// A config.json, asked key by key. Absent keys and nulls mean the same: transformers' default.
class Config {
 public:
  explicit Config(const std::string& path) : path_(path) {
    const auto text = read_text_file(path);
    values_ = json::parse(text, nullptr, false);
    if (!values_.is_object()) throw Error(ErrorKind::bad_input, path + ": not a JSON object");
  }

  Error error(std::string_view key, const std::string& found_and_expected) const {
    return Error(ErrorKind::bad_input, fmt::format("{}: {}: {}", path_, key, found_and_expected));
  }

  // What the complaint about `key` says was found.
  std::string found(std::string_view key) const {
    const auto* value = find(key);
    if (value == nullptr) return "nothing";
    if (value->is_structured()) return value->is_array() ? "an array" : "an object";
    return value->dump(-1, ' ', false, json::error_handler_t::replace);
  }

  const json* find(std::string_view key) const {
    const auto at = values_.find(key);
    return at == values_.end() || at->is_null() ? nullptr : &*at;
  }

  int integer_or(std::string_view key, int fallback, int high) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number_integer() || *value < 1 || *value > high)
      throw mismatch(key, integer_range(high));
    return value->get<int>();
  }

  int integer(std::string_view key, int high) const {
    if (find(key) == nullptr) throw mismatch(key, integer_range(high));
    return integer_or(key, 0, high);
  }

  double number_or(std::string_view key, double fallback, double low, double high) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number() || *value < low || *value > high) {
      throw mismatch(key, fmt::format("a number from {} to {}", low, high));
    }
    return value->get<double>();
  }

  bool boolean_or(std::string_view key, bool fallback) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) throw mismatch(key, "true or false");
    return value->get<bool>();
  }

  std::string string_or(std::string_view key, const std::string& fallback) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) throw mismatch(key, "a string");
    return value->get<std::string>();
  }

  // Refuses a switch that changes the model into one that trireme does not compute.
  void require(std::string_view key, bool only, bool fallback) const {
    if (boolean_or(key, fallback) != only) throw mismatch(key, only ? "true" : "false");
  }

  void require_one_of(std::string_view key, const std::vector<std::string>& allowed) const {
    const auto text = string_or(key, allowed.front());
    if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
      throw mismatch(key, fmt::format("{}", fmt::join(allowed, " or ")));
    }
  }

 private:
  static std::string integer_range(int high) {
    return fmt::format("an integer from 1 to {}", high);
  }
  Error mismatch(std::string_view key, const std::string& expected) const {
    return error(key, fmt::format("found {}, expected {}", found(key), expected));
  }

  std::string path_;
  json values_;
};

// The keys of the two families, by the field of Model that they fill.
using KeyNames = std::map<std::string, const char*>;

const KeyNames& key_names(Family family) {
  static const KeyNames gpt2 = {{"heads", "n_head"},
                                {"kv_heads", "n_head"},
                                {"head_dim", "n_head"},
                                {"positions", "n_positions"}};
  static const KeyNames llama = {{"heads", "num_attention_heads"},
                                 {"kv_heads", "num_key_value_heads"},
                                 {"head_dim", "head_dim"}};
  return family == Family::gpt2 ? gpt2 : llama;
}

Model read_gpt2(const Config& config) {
  using namespace limits;
  config.require_one_of("activation_function", {"gelu_new", "gelu_pytorch_tanh"});
  config.require("scale_attn_weights", true, true);
  config.require("scale_attn_by_inverse_layer_idx", false, false);
  config.require("add_cross_attention", false, false);
  Model model;
  model.family = Family::gpt2;
  model.layers = config.integer("n_layer", kLayers);
  model.hidden = config.integer("n_embd", kHidden);
  model.heads = config.integer("n_head", kHeads);
  model.kv_heads = model.heads;
  model.head_dim = model.hidden / model.heads;
  model.ffn_hidden = config.integer_or("n_inner", 4 * model.hidden, kFfnHidden);
  model.vocab = config.integer("vocab_size", kVocab);
  model.positions = config.integer_or("n_positions", 1024, kSequence);
  model.tied_embeddings = config.boolean_or("tie_word_embeddings", true);
  model.norm_epsilon = config.number_or("layer_norm_epsilon", 1e-5, 1e-30, 1);
  return model;
}

// Plain rotary positions only. Old files: rope_theta and rope_scaling; new ones: rope_parameters
// with both in it.
double read_rope_theta(const Config& config) {
  constexpr double kDefaultTheta = 10000;
  auto theta = config.number_or("rope_theta", kDefaultTheta, 1, 1e15);
  for (const auto* key : {"rope_scaling", "rope_parameters"}) {
    const auto* rope = config.find(key);
    if (rope == nullptr) continue;
    if (!rope->is_object())
      throw config.error(key, fmt::format("found {}, expected an object", config.found(key)));
    for (const auto* type_key : {"rope_type", "type"}) {
      const auto type = rope->value(type_key, json("default"));
      if (type == "default") continue;
      throw config.error(
          fmt::format("{}.{}", key, type_key),
          fmt::format("found {}, expected \"default\"; scaled rotary positions cannot be trained",
                      type.dump(-1, ' ', false, json::error_handler_t::replace)));
    }
    const auto own = rope->value("rope_theta", json(theta));
    if (!own.is_number() || own < 1 || own > 1e15) {
      throw config.error(fmt::format("{}.rope_theta", key),
                         fmt::format("found {}, expected a number from 1 to 1000000000000000",
                                     own.dump(-1, ' ', false, json::error_handler_t::replace)));
    }
    theta = own.get<double>();
  }
  return theta;
}

Model read_llama(const Config& config) {
  using namespace limits;
  config.require_one_of("hidden_act", {"silu"});
  config.require("attention_bias", false, false);
  config.require("mlp_bias", false, false);
  Model model;
  model.family = Family::llama;
  model.layers = config.integer("num_hidden_layers", kLayers);
  model.hidden = config.integer("hidden_size", kHidden);
  model.heads = config.integer("num_attention_heads", kHeads);
  model.kv_heads = config.integer_or("num_key_value_heads", model.heads, kHeads);
  model.head_dim = config.integer_or("head_dim", std::max(1, model.hidden / model.heads), kHeadDim);
  model.ffn_hidden = config.integer("intermediate_size", kFfnHidden);
  model.vocab = config.integer("vocab_size", kVocab);
  model.positions = config.integer_or("max_position_embeddings", 2048, kSequence);
  model.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  model.norm_epsilon = config.number_or("rms_norm_eps", 1e-6, 1e-30, 1);
  model.rope_theta = read_rope_theta(config);
  return model;
}

nlohmann::ordered_json gpt2_config(const Model& model) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"activation_function", "gelu_new"},
          {"n_layer", model.layers},
          {"n_embd", model.hidden},
          {"n_head", model.heads},
          {"n_inner", model.ffn_hidden},
          {"n_positions", model.positions},
          {"n_ctx", model.positions},
          {"layer_norm_epsilon", model.norm_epsilon},
          {"attn_pdrop", 0.0},
          {"embd_pdrop", 0.0},
          {"resid_pdrop", 0.0}};
}

nlohmann::ordered_json llama_config(const Model& model) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "silu"},
          {"num_hidden_layers", model.layers},
          {"hidden_size", model.hidden},
          {"intermediate_size", model.ffn_hidden},
          {"num_attention_heads", model.heads},
          {"num_key_value_heads", model.kv_heads},
          {"head_dim", model.head_dim},
          {"max_position_embeddings", std::max(model.positions, model.sequence)},
          {"rms_norm_eps", model.norm_epsilon},
          {"rope_theta", model.rope_theta},
          {"rope_scaling", nullptr},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"mlp_bias", false}};
}

}  // namespace

Model model_from_hugging_face(const std::string& config_path, int sequence) {
  const Config config(config_path);
  const auto type = config.string_or("model_type", "");
  if (type != "gpt2" && type != "llama") {
    throw config.error("model_type", fmt::format("found {}, expected \"gpt2\" or \"llama\"",
                                                 config.found("model_type")));
  }
  if (config.find("quantization_config") != nullptr) {
    throw config.error("quantization_config",
                       "found quantized weights, expected none: they cannot be trained");
  }
  auto model = type == "gpt2" ? read_gpt2(config) : read_llama(config);
  model.sequence = sequence == 0 ? model.positions : sequence;
  model.init_std = config.number_or("initializer_range", 0.02, 0, 100);
  if (const auto fault = find_fault(model)) {
    throw config.error(key_names(model.family).at(fault->field), fault->found_and_expected);
  }
  return model;
}

std::string to_hugging_face_config(const Model& model) {
  auto config = model.family == Family::gpt2 ? gpt2_config(model) : llama_config(model);
  config["vocab_size"] = model.vocab;
  config["tie_word_embeddings"] = model.tied_embeddings;
  config["initializer_range"] = model.init_std;
  config["torch_dtype"] = "float32";
  config["use_cache"] = true;
  // The vocabulary may be bare bytes: no token begins or ends a text unless whoever made it says
  // so.
  config["bos_token_id"] = nullptr;
  config["eos_token_id"] = nullptr;
  return config.dump(2) + "\n";
}

}  // namespace trireme
