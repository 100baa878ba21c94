#include "runtime/model/emulated_stage.h"

#include <cstring>

namespace trireme {

void EmulatedStage::await(const Activation& message, double hop) {
  if (message == nullptr) return;
  double ready = 0;
  std::memcpy(&ready, message->data(), sizeof ready);
  device_.stream().await_input(ready + setup_.time_scale * hop);
}

Activation EmulatedStage::pass(double seconds, bool sends) {
  const double end = device_.stream().run(setup_.time_scale * seconds);
  if (!sends) return nullptr;
  auto message = device_.activation(setup_.boundary_floats);
  std::memcpy(message->data(), &end, sizeof end);
  return message;
}

void EmulatedStage::finish(int micro_batch, const UnitDone& done) {
  in_flight_.erase(micro_batch);
  ++updates_;
  for (int unit = setup_.units - 1; unit >= 0; --unit) done(unit);
}

Activation EmulatedStage::forward(int micro_batch, const Activation& input,
                                  std::span<const int32_t>, std::span<const int32_t>) {
  const auto floats = static_cast<size_t>(setup_.figures.activation_bytes / sizeof(float));
  in_flight_[micro_batch] = {device_.allocate(floats), updates_};
  return evaluate(micro_batch, input, {}, {});
}

Activation EmulatedStage::evaluate(int, const Activation& input, std::span<const int32_t>,
                                   std::span<const int32_t>) {
  await(input, setup_.input_hop);
  return pass(setup_.figures.forward_seconds, !setup_.last);
}

int EmulatedStage::version(int micro_batch) const {
  const auto found = in_flight_.find(micro_batch);
  return found == in_flight_.end() ? updates_ : found->second.version;
}

Activation EmulatedStage::backward_input(int, const Activation& doutput) {
  await(doutput, setup_.gradient_hop);
  return pass(setup_.figures.input_seconds, !setup_.first);
}

void EmulatedStage::backward_weight(int micro_batch, const GradientTarget&, const UnitDone& done) {
  pass(setup_.figures.weight_seconds, false);
  finish(micro_batch, done);
}

Activation EmulatedStage::backward(int micro_batch, const Activation& doutput,
                                   const GradientTarget&, const UnitDone& done) {
  await(doutput, setup_.gradient_hop);
  auto dinput = pass(setup_.figures.input_seconds + setup_.figures.weight_seconds, !setup_.first);
  finish(micro_batch, done);
  return dinput;
}

}  // namespace trireme
