#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "runtime/device/device.h"

namespace trireme {

struct GradientTarget;

// What the interpreter asks of a stage: the passes of any number of micro-batches in flight. Knows
// nothing of schedules, pipelines or data replicas. Not thread-safe.
class StagePasses {
 public:
  virtual ~StagePasses() = default;

  // Floats of one activation between stages.
  virtual size_t boundary_floats() const = 0;

  // `tokens`: micro_batch * sequence inputs, needed with an embedding; `targets`: as many, needed
  // with a head; both host memory that must stay until the micro-batch's last pass. `input` is
  // empty for the first stage. Returns the output, or nothing from the last stage.
  virtual Activation forward(int micro_batch, const Activation& input,
                             std::span<const int32_t> tokens, std::span<const int32_t> targets) = 0;
  // The same for a micro-batch that never goes back: keeps nothing of it.
  virtual Activation evaluate(int micro_batch, const Activation& input,
                              std::span<const int32_t> tokens,
                              std::span<const int32_t> targets) = 0;
  // How many updates the weights had seen, since this stage was made, that a micro-batch in flight
  // uses, or the newest ones for any other.
  virtual int version(int micro_batch) const = 0;

  // Told when the gradients of a unit (StageParameters) are complete for the micro-batch at hand.
  using UnitDone = std::function<void(int unit)>;

  // The gradient of the stage's input (empty for the first stage), given that of its output (empty
  // for the last). Afterwards only what backward_weight needs is still held.
  virtual Activation backward_input(int micro_batch, const Activation& doutput) = 0;
  // The weight gradients that backward_input left.
  virtual void backward_weight(int micro_batch, const GradientTarget& target,
                               const UnitDone& done) = 0;
  // Both, unit by unit.
  virtual Activation backward(int micro_batch, const Activation& doutput,
                              const GradientTarget& target, const UnitDone& done) = 0;
};

}  // namespace trireme
