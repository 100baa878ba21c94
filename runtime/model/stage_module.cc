#include "runtime/model/stage_module.h"

#include "topology/base/check.h"

namespace trireme {
StageModule::StageModule(Device& device, Communicator& tensor_group, const Setup& setup)
    : device_(device),
      tensor_group_(tensor_group),
      setup_(setup),
      rows_(setup.micro_batch * setup.model.sequence),
      parameters_(stage_parameters(setup.model, setup.stage, setup.tensor, setup.tensor_index)),
      weights_(device.allocate(parameters_.weight_count)),
      vocabulary_(split_evenly(setup.model.vocab, setup.tensor, setup.tensor_index)) {
  device.zero(weights_.data(), weights_.size());
  const LayerContext context{&device_, &tensor_group_, weights_.data(), setup.reuse_weights};
  const Model& model = setup_.model;
  const HeadShare heads = head_share(model, setup.tensor, setup.tensor_index);
  layers_.reserve(setup.stage.layers);
  for (int i = 0; i < setup.stage.layers; ++i) {
    layers_.emplace_back(model, parameters_, setup.stage.first_layer + i, context, heads,
                         setup.micro_batch);
  }
  if (setup.stage.embedding) {
    token_table_ = parameters_.find("embedding.tokens").offset;
    if (model.family == Family::gpt2)
      position_table_ = parameters_.find("embedding.positions").offset;
  }
  if (setup.stage.head) {
    const bool biased = model.family == Family::gpt2;
    final_norm_.emplace(
        context, parameters_.find("final_norm.weight").offset,
        biased ? std::optional(parameters_.find("final_norm.bias").offset) : std::nullopt,
        model.hidden, model.norm_epsilon);
    const auto* name = model.tied_embeddings ? "embedding.tokens" : "head.weight";
    const size_t offset = parameters_.find(name).offset;
    head_.emplace(context, offset, std::nullopt, vocabulary_.size(), model.hidden);
    const bool shared = model.tied_embeddings && setup.stage.embedding;
    head_gradient_ = shared ? parameters_.tied_gradient : offset;
  }
}

void StageModule::weights_changed() {
  for (auto& layer : layers_) layer.weights_changed();
  if (head_) head_->changed();
}

Activation StageModule::embed(std::span<const int32_t> tokens) {
  const int hidden = setup_.model.hidden;
  auto x = device_.activation(boundary_floats());
  device_.embedding_forward(x->data(), tokens.data(), weights_.data() + token_table_, rows_, hidden,
                            vocabulary_.begin, vocabulary_.size());
  tensor_group_.all_reduce(x->span(), ReduceOp::sum);
  if (position_table_) {
    device_.add_positions(x->data(), weights_.data() + *position_table_, setup_.micro_batch,
                          setup_.model.sequence, hidden);
  }
  return x;
}

Activation StageModule::forward(int micro_batch, const Activation& input,
                                std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  InFlight& flight = in_flight_[micro_batch];
  flight.tokens = tokens;
  flight.targets = targets;
  flight.layers.resize(layers_.size());
  Activation x = setup_.stage.embedding ? embed(tokens) : input;
  for (size_t i = 0; i < layers_.size(); ++i) x = layers_[i].forward(x, flight.layers[i]);
  if (!setup_.stage.head) return x;
  head_forward(x, micro_batch, flight);
  return nullptr;
}

// Loss and its gradient in one go: the logits are never kept, only their gradient, and never
// gathered.
void StageModule::head_forward(const Activation& x, int micro_batch, InFlight& flight) {
  flight.normed = final_norm_->forward(x, rows_, flight.final_norm);
  flight.dlogits = head_->forward(flight.normed, rows_);
  float* logits = flight.dlogits->data();
  const auto maximum = device_.allocate(rows_);
  const auto sums = device_.allocate(2 * static_cast<size_t>(rows_));
  const auto losses = device_.allocate(rows_);
  const int32_t* targets = flight.targets.data();
  device_.cross_entropy_maximum(maximum.data(), logits, rows_, vocabulary_.size());
  tensor_group_.all_reduce(maximum.span(), ReduceOp::maximum);
  device_.cross_entropy_sums(sums.data(), logits, maximum.data(), targets, rows_,
                             vocabulary_.size(), vocabulary_.begin);
  tensor_group_.all_reduce(sums.span(), ReduceOp::sum);
  device_.cross_entropy_gradient(losses.data(), logits, sums.data(), targets, rows_,
                                 vocabulary_.size(), vocabulary_.begin, setup_.loss_scale);
  std::vector<float> host(rows_);
  device_.copy_to_host(host.data(), losses.data(), host.size());
  auto& samples = losses_[micro_batch];
  samples.assign(setup_.micro_batch, 0.0);
  for (int row = 0; row < rows_; ++row) {
    samples[row / setup_.model.sequence] += static_cast<double>(host[row]);
  }
}

Activation StageModule::head_backward(InFlight& flight, const GradientTarget& target,
                                      bool with_weights) {
  const auto dnormed = head_->input_gradient(flight.dlogits, rows_);
  flight.head_owed.push_back({[this, dy = std::move(flight.dlogits),
                               x = std::move(flight.normed)](const GradientTarget& to) {
    device_.linear_weight_gradient(to.gradients + head_gradient_, dy->data(), x->data(), rows_,
                                   head_->out(), head_->in(), to.accumulate);
  }});
  tensor_sum({&device_, &tensor_group_}, dnormed->span(), [&] {
    if (with_weights) run_all(flight.head_owed, target);
  });
  const auto none = device_.allocate(dnormed->size());
  device_.zero(none.data(), none.size());
  return final_norm_->backward(dnormed, none.data(), rows_, flight.final_norm, target);
}

void StageModule::embedding_gradient(InFlight& flight, const GradientTarget& target) {
  const int hidden = setup_.model.hidden;
  float* table = target.gradients + token_table_;
  if (!target.accumulate) device_.zero(table, static_cast<size_t>(vocabulary_.size()) * hidden);
  device_.embedding_backward(table, flight.tokens.data(), flight.dembedded->data(), rows_, hidden,
                             vocabulary_.begin, vocabulary_.size());
  if (position_table_) {
    float* positions = target.gradients + *position_table_;
    const size_t used = static_cast<size_t>(setup_.model.sequence) * hidden;
    if (!target.accumulate) {
      device_.zero(positions + used, static_cast<size_t>(setup_.model.positions) * hidden - used);
    }
    device_.positions_gradient(positions, flight.dembedded->data(), setup_.micro_batch,
                               setup_.model.sequence, hidden, target.accumulate);
  }
  flight.dembedded.reset();
}

Activation StageModule::pass_back(int micro_batch, const Activation& doutput,
                                  const GradientTarget& target, bool with_weights,
                                  const UnitDone& done) {
  auto found = in_flight_.find(micro_batch);
  TRIREME_CHECK(found != in_flight_.end());
  InFlight& flight = found->second;
  const auto finish_unit = [&](int unit, WeightWorkList& owed) {
    if (!with_weights) return;
    run_all(owed, target);
    done(unit);
  };
  Activation d = doutput;
  if (setup_.stage.head) {
    d = head_backward(flight, target, with_weights);
    finish_unit(parameters_.units - 1, flight.head_owed);
  }
  for (int i = static_cast<int>(layers_.size()) - 1; i >= 0; --i) {
    d = layers_[i].backward_input(d, flight.layers[i], target, with_weights);
    finish_unit(first_layer_unit() + i, flight.layers[i].owed);
  }
  if (!setup_.stage.embedding) return d;
  flight.dembedded = std::move(d);
  return nullptr;
}

Activation StageModule::backward_input(int micro_batch, const Activation& doutput,
                                       const GradientTarget& target) {
  return pass_back(micro_batch, doutput, target, false, {});
}

void StageModule::backward_weight(int micro_batch, const GradientTarget& target,
                                  const UnitDone& done) {
  auto found = in_flight_.find(micro_batch);
  TRIREME_CHECK(found != in_flight_.end());
  InFlight& flight = found->second;
  if (setup_.stage.head) {
    run_all(flight.head_owed, target);
    done(parameters_.units - 1);
  }
  for (int i = static_cast<int>(layers_.size()) - 1; i >= 0; --i) {
    run_all(flight.layers[i].owed, target);
    done(first_layer_unit() + i);
  }
  if (setup_.stage.embedding) {
    embedding_gradient(flight, target);
    done(0);
  }
  in_flight_.erase(found);
}

Activation StageModule::backward(int micro_batch, const Activation& doutput,
                                 const GradientTarget& target, const UnitDone& done) {
  auto dinput = pass_back(micro_batch, doutput, target, true, done);
  InFlight& flight = in_flight_.at(micro_batch);
  if (setup_.stage.embedding) {
    embedding_gradient(flight, target);
    done(0);
  }
  in_flight_.erase(micro_batch);
  return dinput;
}

}  // namespace trireme
