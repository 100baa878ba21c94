#include "runtime/model/stage_module.h"

#include <algorithm>

#include "topology/base/check.h"

namespace trireme {

StageModule::StageModule(Device& device, Communicator& tensor_group, const Setup& setup)
    : device_(device),
      tensor_group_(tensor_group),
      setup_(setup),
      rows_(setup.micro_batch * setup.model.sequence),
      parameters_(stage_parameters(setup.model, setup.stage, setup.tensor, setup.tensor_index)),
      vocabulary_(split_evenly(setup.model.vocab, setup.tensor, setup.tensor_index)) {
  if (setup.stage.embedding) {
    token_table_ = parameters_.find("embedding.tokens").offset;
    if (setup.model.family == Family::gpt2)
      position_table_ = parameters_.find("embedding.positions").offset;
  }
  versions_.push_back(make_version());
  current_ = versions_.front().get();
  device.zero(current_->weights.data(), current_->weights.size());
}

std::unique_ptr<StageModule::Version> StageModule::make_version() const {
  auto version = std::make_unique<Version>();
  version->weights = device_.allocate(parameters_.weight_count);
  const LayerContext context{&device_, &tensor_group_, version->weights.data(),
                             setup_.reuse_weights};
  const HeadShare heads = head_share(setup_.model, setup_.tensor, setup_.tensor_index);
  version->layers.reserve(setup_.stage.layers);
  for (int i = 0; i < setup_.stage.layers; ++i) {
    version->layers.emplace_back(setup_.model, parameters_, setup_.stage.first_layer + i, context,
                                 heads, setup_.micro_batch);
  }
  if (setup_.stage.head) add_head(*version, context);
  return version;
}

void StageModule::add_head(Version& version, const LayerContext& context) const {
  const Model& model = setup_.model;
  std::optional<size_t> bias;
  if (model.family == Family::gpt2) bias = parameters_.find("final_norm.bias").offset;
  version.final_norm.emplace(context, parameters_.find("final_norm.weight").offset, bias,
                             model.hidden, model.norm_epsilon);
  const auto* name = model.tied_embeddings ? "embedding.tokens" : "head.weight";
  version.head.emplace(context, parameters_.find(name).offset, std::nullopt, vocabulary_.size(),
                       model.hidden);
  if (model.tied_embeddings && setup_.stage.embedding)
    version.head->put_gradient_at(parameters_.tied_gradient);
}

bool StageModule::in_use(const Version& version) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(),
                     [&](const auto& entry) { return entry.second.version == &version; });
}

StageModule::InFlight& StageModule::in_flight(int micro_batch) {
  const auto found = in_flight_.find(micro_batch);
  TRIREME_CHECK(found != in_flight_.end());
  return found->second;
}

int StageModule::version(int micro_batch) const {
  const auto found = in_flight_.find(micro_batch);
  return (found != in_flight_.end() ? found->second.version : current_)->number;
}

float* StageModule::next_weights() {
  const int number = current_->number + 1;
  if (in_use(*current_)) {
    const auto is_free = [this](const auto& version) { return !in_use(*version); };
    auto next = std::find_if(versions_.begin(), versions_.end(), is_free);
    if (next == versions_.end()) next = versions_.insert(next, make_version());
    device_.copy((*next)->weights.data(), current_->weights.data(), parameters_.weight_count);
    current_ = next->get();
  }
  current_->number = number;
  return current_->weights.data();
}

void StageModule::weights_changed() {
  for (auto& layer : current_->layers) layer.weights_changed();
  if (current_->head) current_->head->changed();
}

Activation StageModule::embed(const InFlight& flight) {
  const int hidden = setup_.model.hidden;
  const float* weights = flight.version->weights.data();
  auto x = device_.activation(boundary_floats());
  device_.embedding_forward(x->data(), flight.tokens.data(), weights + token_table_, rows_, hidden,
                            vocabulary_.begin, vocabulary_.size());
  tensor_group_.all_reduce(x->span(), ReduceOp::sum);
  if (position_table_) {
    device_.add_positions(x->data(), weights + *position_table_, setup_.micro_batch,
                          setup_.model.sequence, hidden);
  }
  return x;
}

Activation StageModule::forward(int micro_batch, const Activation& input,
                                std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  InFlight& flight = in_flight_[micro_batch];
  flight.tokens = tokens;
  flight.targets = targets;
  return pass_forward(flight, micro_batch, input, true);
}

Activation StageModule::evaluate(int micro_batch, const Activation& input,
                                 std::span<const int32_t> tokens,
                                 std::span<const int32_t> targets) {
  InFlight passing;
  passing.tokens = tokens;
  passing.targets = targets;
  return pass_forward(passing, micro_batch, input, false);
}

Activation StageModule::pass_forward(InFlight& flight, int micro_batch, const Activation& input,
                                     bool keep) {
  flight.version = current_;
  flight.layers.resize(current_->layers.size());
  Activation x = setup_.stage.embedding ? embed(flight) : input;
  for (size_t i = 0; i < flight.layers.size(); ++i) {
    x = current_->layers[i].forward(x, flight.layers[i]);
    if (!keep) flight.layers[i] = {};
  }
  if (!setup_.stage.head) return x;
  head_forward(x, micro_batch, flight);
  return nullptr;
}

// Loss and its gradient in one go: the logits are never kept, only their gradient, and never
// gathered.
void StageModule::head_forward(const Activation& x, int micro_batch, InFlight& flight) {
  flight.normed = current_->final_norm->forward(x, rows_, flight.final_norm);
  flight.dlogits = current_->head->forward(flight.normed, rows_);
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

std::vector<double> StageModule::take_losses(int micro_batch) {
  const auto found = losses_.find(micro_batch);
  TRIREME_CHECK(found != losses_.end());
  auto losses = std::move(found->second);
  losses_.erase(found);
  return losses;
}

Activation StageModule::head_backward(InFlight& flight, const GradientTarget* now) {
  const Version& version = *flight.version;
  const auto dnormed = version.head->input_gradient(flight.dlogits, rows_);
  version.head->owe_gradient(std::move(flight.dlogits), std::move(flight.normed), rows_,
                             flight.head_owed);
  tensor_sum({&device_, &tensor_group_}, dnormed->span(), flight.head_owed, now);
  return version.final_norm->backward(dnormed, nullptr, rows_, flight.final_norm, flight.head_owed);
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

Activation StageModule::pass_back(InFlight& flight, const Activation& doutput,
                                  const GradientTarget* now, const UnitDone& done) {
  const auto finish_unit = [&](int unit, OwedGradients& owed) {
    if (now == nullptr) return;
    owed.settle(*now);
    done(unit);
  };
  Activation d = doutput;
  if (setup_.stage.head) {
    d = head_backward(flight, now);
    finish_unit(parameters_.units - 1, flight.head_owed);
  }
  for (int i = setup_.stage.layers - 1; i >= 0; --i) {
    d = flight.version->layers[i].backward_input(d, flight.layers[i], now);
    finish_unit(first_layer_unit() + i, flight.layers[i].owed);
  }
  if (!setup_.stage.embedding) return d;
  flight.dembedded = std::move(d);
  return nullptr;
}

Activation StageModule::backward_input(int micro_batch, const Activation& doutput) {
  return pass_back(in_flight(micro_batch), doutput, nullptr, {});
}

void StageModule::backward_weight(int micro_batch, const GradientTarget& target,
                                  const UnitDone& done) {
  InFlight& flight = in_flight(micro_batch);
  if (setup_.stage.head) {
    flight.head_owed.settle(target);
    done(parameters_.units - 1);
  }
  for (int i = setup_.stage.layers - 1; i >= 0; --i) {
    flight.layers[i].owed.settle(target);
    done(first_layer_unit() + i);
  }
  if (setup_.stage.embedding) {
    embedding_gradient(flight, target);
    done(0);
  }
  in_flight_.erase(micro_batch);
}

Activation StageModule::backward(int micro_batch, const Activation& doutput,
                                 const GradientTarget& target, const UnitDone& done) {
  InFlight& flight = in_flight(micro_batch);
  auto dinput = pass_back(flight, doutput, &target, done);
  if (setup_.stage.embedding) {
    embedding_gradient(flight, target);
    done(0);
  }
  in_flight_.erase(micro_batch);
  return dinput;
}

}  // namespace trireme
