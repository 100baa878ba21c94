#pragma once

#include "planner/plan/job.h"
#include "runtime/device/device.h"
#include "runtime/model/stage_module.h"

namespace trireme {

// AdamW's state of one stage on this rank, flat memory at the offsets of the stage's parameters.
// The device must outlive it. Not thread-safe.
class StageOptimizer {
 public:
  StageOptimizer(Device& device, const StageParameters& parameters);

  float* momentum() { return momentum_.data(); }
  float* variance() { return variance_.data(); }

  struct Update {
    int count = 1;  // of updates so far, this one included
    double learning_rate = 0;
    double norm = 0;  // what `clip_grad` is held against
  };
  // Gives the stage its next weights.
  void update(StageModule& stage, const float* gradients, const Training& training,
              const Update& update);

 private:
  Device& device_;
  Buffer momentum_;
  Buffer variance_;
};

}  // namespace trireme
