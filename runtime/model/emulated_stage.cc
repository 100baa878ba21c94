#include "runtime/model/emulated_stage.h"

#include <cstring>

namespace trireme {

void EmulatedStage::await(const Activation& message) {
  if (message == nullptr) return;
  double there = 0;
  std::memcpy(&there, message->data(), sizeof there);
  device_.stream().await_input(there);
}

double EmulatedStage::pass(double seconds) {
  return device_.stream().run(setup_.time_scale * seconds);
}

Activation EmulatedStage::message(double end, EmulatedLink* link) {
  const double there = link == nullptr ? end : link->arrival(end);
  auto message = device_.activation(setup_.boundary_floats);
  std::memcpy(message->data(), &there, sizeof there);
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
  await(input);
  const double end = pass(setup_.figures.forward_seconds);
  return setup_.last ? nullptr : message(end, setup_.to_next);
}

int EmulatedStage::version(int micro_batch) const {
  const auto found = in_flight_.find(micro_batch);
  return found == in_flight_.end() ? updates_ : found->second.version;
}

Activation EmulatedStage::backward_input(int, const Activation& doutput) {
  await(doutput);
  const double end = pass(setup_.figures.input_seconds);
  return setup_.first ? nullptr : message(end, setup_.to_previous);
}

void EmulatedStage::backward_weight(int micro_batch, const GradientTarget&, const UnitDone& done) {
  pass(setup_.figures.weight_seconds);
  finish(micro_batch, done);
}

Activation EmulatedStage::backward(int micro_batch, const Activation& doutput,
                                   const GradientTarget&, const UnitDone& done) {
  await(doutput);
  const double end = pass(setup_.figures.input_seconds + setup_.figures.weight_seconds);
  auto dinput = setup_.first ? nullptr : message(end, setup_.to_previous);
  finish(micro_batch, done);
  return dinput;
}

}  // namespace trireme
