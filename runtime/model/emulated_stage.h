#pragma once

#include <map>

#include "planner/plan/plan.h"
#include "runtime/device/emulated_device.h"
#include "runtime/model/stage_passes.h"

namespace trireme {

// The way of messages to one other rank: each takes it for `transfer` seconds, after those sent
// before, and is there `hop` later.
struct EmulatedLink {
  double transfer = 0;
  double hop = 0;
  double free = 0;  // when all messages so far have left it

  double arrival(double sent) {
    free = (sent > free ? sent : free) + transfer;
    return free + hop;
  }
};

// A stage of a rehearsal: every pass takes the time that the plan gives it and keeps the bytes that
// the plan says it keeps. All that its activations hold is the time from which on they are there,
// which is how a message tells the emulated device at its other end when its own op may start.
class EmulatedStage final : public StagePasses {
 public:
  struct Setup {
    StagePrediction figures;
    double time_scale = 1;
    size_t boundary_floats = 2;  // at least 2
    int units = 0;               // of StageParameters
    bool first = false;
    bool last = false;
    // To the ranks of the stages behind and before, in seconds as they pass; shared by all stages
    // of a rank. Null where that stage lies on the same rank.
    EmulatedLink* to_next = nullptr;
    EmulatedLink* to_previous = nullptr;
  };
  EmulatedStage(EmulatedDevice& device, const Setup& setup) : device_(device), setup_(setup) {}

  size_t boundary_floats() const override { return setup_.boundary_floats; }
  Activation forward(int micro_batch, const Activation& input, std::span<const int32_t> tokens,
                     std::span<const int32_t> targets) override;
  Activation evaluate(int micro_batch, const Activation& input, std::span<const int32_t> tokens,
                      std::span<const int32_t> targets) override;
  int version(int micro_batch) const override;
  Activation backward_input(int micro_batch, const Activation& doutput) override;
  void backward_weight(int micro_batch, const GradientTarget& target,
                       const UnitDone& done) override;
  Activation backward(int micro_batch, const Activation& doutput, const GradientTarget& target,
                      const UnitDone& done) override;

 private:
  void await(const Activation& message);
  double pass(double seconds);  // returns its end
  Activation message(double end, EmulatedLink* link);
  void finish(int micro_batch, const UnitDone& done);

  EmulatedDevice& device_;
  Setup setup_;
  struct InFlight {
    Buffer activations;
    int version = 0;
  };
  std::map<int, InFlight> in_flight_;  // by micro-batch
  int updates_ = 0;
};

}  // namespace trireme
