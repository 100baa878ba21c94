#include "runtime/model/decoder_layer.h"

#include <fmt/format.h>

namespace trireme {
namespace {

enum { kQkv, kOutput, kUp, kDown };

}  // namespace

DecoderLayer::DecoderLayer(const Model& model, const StageParameters& parameters, int layer,
                           const LayerContext& context, HeadShare heads, int batch)
    : context_(context),
      family_(model.family),
      rope_theta_(model.rope_theta),
      rows_(batch * model.sequence),
      hidden_(model.hidden) {
  shape_ = {batch, model.sequence, heads.query.size(), heads.kv.size(), model.head_dim};
  const auto at = [&](const char* name) -> const ParameterSpec& {
    return parameters.find(fmt::format("layers.{}.{}", layer, name));
  };
  const bool biased = family_ == Family::gpt2;
  const auto bias = [&](const char* name) -> std::optional<size_t> {
    if (!biased) return std::nullopt;
    return at(name).offset;
  };
  ffn_ = at("mlp.up.weight").local.size();
  norms_.emplace_back(context, at("norm1.weight").offset, bias("norm1.bias"), hidden_,
                      model.norm_epsilon);
  norms_.emplace_back(context, at("norm2.weight").offset, bias("norm2.bias"), hidden_,
                      model.norm_epsilon);
  linears_.emplace_back(context, at("attention.query.weight").offset, bias("attention.query.bias"),
                        shape_.row_width(), hidden_);
  linears_.emplace_back(context, at("attention.output.weight").offset,
                        bias("attention.output.bias"), hidden_, shape_.query_width());
  const char* first_up = biased ? "mlp.up.weight" : "mlp.gate.weight";
  linears_.emplace_back(context, at(first_up).offset, bias("mlp.up.bias"), biased ? ffn_ : 2 * ffn_,
                        hidden_);
  linears_.emplace_back(context, at("mlp.down.weight").offset, bias("mlp.down.bias"), hidden_,
                        ffn_);
  if (biased) {
    qkv_bias_ = context.weights + at("attention.query.bias").offset;
    output_bias_ = context.weights + at("attention.output.bias").offset;
    up_bias_ = context.weights + at("mlp.up.bias").offset;
    down_bias_ = context.weights + at("mlp.down.bias").offset;
  }
}

Activation DecoderLayer::forward(const Activation& x, Saved& saved) const {
  return mlp_forward(attention_forward(x, saved), saved);
}

Activation DecoderLayer::attention_forward(const Activation& x, Saved& saved) const {
  Device& device = *context_.device;
  saved.normed1 = norms_[0].forward(x, rows_, saved.norm1);
  saved.qkv = linears_[kQkv].forward(saved.normed1, rows_);
  if (qkv_bias_ != nullptr)
    device.add_bias(saved.qkv->data(), qkv_bias_, rows_, shape_.row_width());
  if (family_ == Family::llama) device.rotary(saved.qkv->data(), shape_, rope_theta_, false);
  saved.attended = device.activation(static_cast<size_t>(rows_) * shape_.query_width());
  saved.logsumexp = device.activation(static_cast<size_t>(rows_) * shape_.heads);
  device.attention_forward(saved.attended->data(), saved.logsumexp->data(), saved.qkv->data(),
                           shape_);
  auto y = linears_[kOutput].forward(saved.attended, rows_);
  tensor_sum(context_, y->span());
  device.add_residual(y->data(), x->data(), output_bias_, rows_, hidden_);
  return y;
}

Activation DecoderLayer::mlp_forward(const Activation& x2, Saved& saved) const {
  Device& device = *context_.device;
  saved.normed2 = norms_[1].forward(x2, rows_, saved.norm2);
  saved.up = linears_[kUp].forward(saved.normed2, rows_);
  saved.hidden = device.activation(static_cast<size_t>(rows_) * ffn_);
  if (family_ == Family::gpt2) {
    device.gelu_forward(saved.hidden->data(), saved.up->data(), up_bias_, rows_, ffn_);
  } else {
    device.swiglu_forward(saved.hidden->data(), saved.up->data(), rows_, ffn_);
  }
  auto y = linears_[kDown].forward(saved.hidden, rows_);
  tensor_sum(context_, y->span());
  device.add_residual(y->data(), x2->data(), down_bias_, rows_, hidden_);
  return y;
}

Activation DecoderLayer::backward_input(const Activation& dy, Saved& saved,
                                        const GradientTarget* now) const {
  return attention_backward(mlp_backward(dy, saved, now), saved, now);
}

Activation DecoderLayer::mlp_backward(const Activation& dy, Saved& saved,
                                      const GradientTarget* now) const {
  Device& device = *context_.device;
  auto dhidden = linears_[kDown].input_gradient(dy, rows_);
  linears_[kDown].owe_gradient(dy, std::move(saved.hidden), rows_, saved.owed);
  auto dup = dhidden;
  if (family_ == Family::gpt2) {
    device.gelu_backward(dup->data(), saved.up->data(), dup->size());
  } else {
    dup = device.activation(saved.up->size());
    device.swiglu_backward(dup->data(), dhidden->data(), saved.up->data(), rows_, ffn_);
  }
  saved.up.reset();
  const auto dnormed = linears_[kUp].input_gradient(dup, rows_);
  linears_[kUp].owe_gradient(std::move(dup), std::move(saved.normed2), rows_, saved.owed);
  tensor_sum(context_, dnormed->span(), saved.owed, now);
  return norms_[1].backward(dnormed, dy->data(), rows_, saved.norm2, saved.owed);
}

Activation DecoderLayer::attention_backward(const Activation& d2, Saved& saved,
                                            const GradientTarget* now) const {
  Device& device = *context_.device;
  const auto dattended = linears_[kOutput].input_gradient(d2, rows_);
  auto dqkv = device.activation(saved.qkv->size());
  device.attention_backward(dqkv->data(), dattended->data(), saved.qkv->data(),
                            saved.attended->data(), saved.logsumexp->data(), shape_);
  linears_[kOutput].owe_gradient(d2, std::move(saved.attended), rows_, saved.owed);
  saved.qkv.reset();
  saved.logsumexp.reset();
  if (family_ == Family::llama) device.rotary(dqkv->data(), shape_, rope_theta_, true);
  const auto dnormed = linears_[kQkv].input_gradient(dqkv, rows_);
  linears_[kQkv].owe_gradient(std::move(dqkv), std::move(saved.normed1), rows_, saved.owed);
  tensor_sum(context_, dnormed->span(), saved.owed, now);
  return norms_[0].backward(dnormed, d2->data(), rows_, saved.norm1, saved.owed);
}

void DecoderLayer::weights_changed() {
  for (auto& linear : linears_) linear.changed();
}

}  // namespace trireme
