#include "runtime/model/parameters.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "runtime/model/random.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

// Parameters begin at whole cache lines.
constexpr size_t kAlignFloats = 16;

// Collects specs unit by unit.
class Builder {
 public:
  Builder(const Model& model, int tensor, int index)
      : model_(model),
        heads_(head_share(model, tensor, index)),
        ffn_(split_evenly(model.ffn_hidden, tensor, index)),
        vocab_(split_evenly(model.vocab, tensor, index)),
        residual_std_(model.init_std / std::sqrt(2.0 * model.layers)) {}

  void embedding() {
    begin_unit();
    matrix("embedding.tokens", model_.vocab, model_.hidden, Sharding::rows, vocab_,
           model_.init_std);
    if (model_.family == Family::gpt2) {
      matrix("embedding.positions", model_.positions, model_.hidden, Sharding::replicated, {},
             model_.init_std);
    }
    end_unit();
  }

  void layer(int number) {
    begin_unit();
    prefix_ = fmt::format("layers.{}.", number);
    const int hidden = model_.hidden;
    const int width = model_.heads * model_.head_dim;
    const int kv_width = model_.kv_heads * model_.head_dim;
    const bool biased = model_.family == Family::gpt2;
    const double std = model_.init_std;
    norm("norm1");
    matrix("attention.query.weight", width, hidden, Sharding::rows, scaled(heads_.query), std);
    matrix("attention.key.weight", kv_width, hidden, Sharding::rows, scaled(heads_.kv), std);
    matrix("attention.value.weight", kv_width, hidden, Sharding::rows, scaled(heads_.kv), std);
    if (biased) {
      vector("attention.query.bias", width, Sharding::rows, scaled(heads_.query));
      vector("attention.key.bias", kv_width, Sharding::rows, scaled(heads_.kv));
      vector("attention.value.bias", kv_width, Sharding::rows, scaled(heads_.kv));
    }
    matrix("attention.output.weight", hidden, width, Sharding::columns, scaled(heads_.query),
           residual_std_);
    if (biased) vector("attention.output.bias", hidden, Sharding::replicated, {});
    norm("norm2");
    if (!biased) matrix("mlp.gate.weight", model_.ffn_hidden, hidden, Sharding::rows, ffn_, std);
    matrix("mlp.up.weight", model_.ffn_hidden, hidden, Sharding::rows, ffn_, std);
    if (biased) vector("mlp.up.bias", model_.ffn_hidden, Sharding::rows, ffn_);
    matrix("mlp.down.weight", hidden, model_.ffn_hidden, Sharding::columns, ffn_, residual_std_);
    if (biased) vector("mlp.down.bias", hidden, Sharding::replicated, {});
    prefix_.clear();
    end_unit();
  }

  void head(bool holds_embedding) {
    begin_unit();
    norm("final_norm");
    if (!model_.tied_embeddings) {
      matrix("head.weight", model_.vocab, model_.hidden, Sharding::rows, vocab_, model_.init_std);
    } else if (!holds_embedding) {
      matrix("embedding.tokens", model_.vocab, model_.hidden, Sharding::rows, vocab_,
             model_.init_std);
      result_.specs.back().tied_copy = true;
    }
    result_.weight_count = next_;
    if (model_.tied_embeddings && holds_embedding) {
      result_.tied_gradient = next_;
      next_ += aligned(static_cast<size_t>(vocab_.size()) * model_.hidden);
    }
    end_unit();
  }

  StageParameters take() {
    if (result_.weight_count == 0) result_.weight_count = next_;
    result_.gradient_count = next_;
    return std::move(result_);
  }

 private:
  static size_t aligned(size_t count) {
    return (count + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
  }
  Range scaled(Range heads) const {
    return {heads.begin * model_.head_dim, heads.end * model_.head_dim};
  }

  void begin_unit() { unit_begin_ = next_; }
  void end_unit() {
    next_ = aligned(next_);
    result_.unit_ranges.push_back({unit_begin_, next_});
    ++result_.units;
  }

  void norm(const std::string& name) {
    vector(name + ".weight", model_.hidden, Sharding::replicated, {});
    result_.specs.back().initial = Initial::one;
    if (model_.family == Family::gpt2) {
      vector(name + ".bias", model_.hidden, Sharding::replicated, {});
    }
  }

  void matrix(const std::string& name, int rows, int columns, Sharding sharding, Range local,
              double std) {
    ParameterSpec spec;
    spec.rows = rows;
    spec.columns = columns;
    spec.initial_std = std;
    spec.decays = true;
    add(std::move(spec), name, sharding, local);
  }
  void vector(const std::string& name, int size, Sharding sharding, Range local) {
    ParameterSpec spec;
    spec.rows = size;
    spec.vector = true;
    spec.initial = Initial::zero;
    add(std::move(spec), name, sharding, local);
  }

  // Parameters of one unit follow each other without gaps, so that neighbours form one matrix; only
  // units are aligned.
  void add(ParameterSpec spec, const std::string& name, Sharding sharding, Range local) {
    spec.name = prefix_ + name;
    spec.sharding = sharding;
    spec.local = sharding == Sharding::replicated ? Range{0, spec.rows} : local;
    spec.unit = result_.units;
    spec.offset = next_;
    next_ += spec.local_count();
    result_.specs.push_back(std::move(spec));
  }

  const Model& model_;
  HeadShare heads_;
  Range ffn_;
  Range vocab_;
  double residual_std_;
  std::string prefix_;
  size_t next_ = 0;
  size_t unit_begin_ = 0;
  StageParameters result_;
};

}  // namespace

HeadShare head_share(const Model& model, int tensor, int index) {
  const int sharing = model.heads / model.kv_heads;
  const Range kv = split_evenly(model.kv_heads, tensor, index);
  return {{kv.begin * sharing, kv.end * sharing}, kv};
}

const ParameterSpec& StageParameters::find(const std::string& name) const {
  const auto found =
      std::find_if(specs.begin(), specs.end(), [&](const auto& spec) { return spec.name == name; });
  TRIREME_CHECK(found != specs.end());
  return *found;
}

StageParameters stage_parameters(const Model& model, const Stage& stage, int tensor, int index) {
  Builder builder(model, tensor, index);
  if (stage.embedding) builder.embedding();
  for (int i = 0; i < stage.layers; ++i) builder.layer(stage.first_layer + i);
  if (stage.head) builder.head(stage.embedding);
  return builder.take();
}

std::vector<ParameterSpec> all_parameters(const Model& model) {
  return stage_parameters(model, {0, 0, 0, model.layers, true, true}, 1, 0).specs;
}

void initialize(const ParameterSpec& spec, uint64_t seed, float* local_values) {
  const size_t count = spec.local_count();
  if (spec.initial != Initial::normal) {
    std::fill_n(local_values, count, spec.initial == Initial::one ? 1.0F : 0.0F);
    return;
  }
  const NamedRandom random(seed, spec.name);
  const int first_row = spec.sharding == Sharding::rows ? spec.local.begin : 0;
  const int first_column = spec.sharding == Sharding::columns ? spec.local.begin : 0;
  const auto std = static_cast<float>(spec.initial_std);
  for (int row = 0; row < spec.local_rows(); ++row) {
    float* values = local_values + static_cast<size_t>(row) * spec.local_columns();
    const uint64_t index = static_cast<uint64_t>(first_row + row) * spec.columns + first_column;
    random.normals(index, spec.local_columns(), values);
    for (int c = 0; c < spec.local_columns(); ++c) values[c] *= std;
  }
}

}  // namespace trireme
