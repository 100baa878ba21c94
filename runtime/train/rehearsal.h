#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/rehearsal.h"
#include "planner/plan/status_page.h"
#include "runtime/comm/scaled_transport.h"
#include "runtime/device/emulated_device.h"
#include "runtime/model/emulated_stage.h"
#include "runtime/train/interpreter.h"

namespace trireme {

// Whom a rank sends to in a rehearsal, ascending: the owners of neighbouring stages, the data
// replicas of its stages, and its neighbours in the tree that ends a step.
std::vector<Rank> rehearsal_peers(const Plan& plan, Rank rank);

// What a rehearsed step was like. Seconds are predicted ones: real ones divided by the time scale.
struct RehearsedStep {
  int step = 0;  // from 0
  double seconds = 0;
  double busy_seconds = 0;    // this rank, in ops
  double window_seconds = 0;  // this rank, from the step's begin to its last op's end
  bool stop = false;          // some rank was asked to stop
  // Of any rank: by how much this machine was too late to keep the emulated devices' time.
  double slipped_seconds = 0;
  // The most bytes that any rank of each pipeline rank held at once so far.
  std::vector<double> peak_bytes;
};

// One rank of a rehearsal: the interpreter, the gradient sums and the messages are those of
// training, the device is emulated and the stages take the plan's time. Collectives among tensor
// ranks are part of an op's predicted time and are not sent; messages of the pipeline and of the
// gradient sums are. What the plan expects after the last op (data reduction that nothing hides,
// tied embeddings, optimizer) is waited for at the end of a step, and the sums are made meanwhile.
//
// All ranks construct it and call its functions together. The transport must outlive it. Not
// thread-safe.
class RehearsalTrainer {
 public:
  RehearsalTrainer(const Plan& plan, Rank rank, const Rehearsal& rehearsal, Transport& transport,
                   StatusPage& status, const std::string& trace_path);
  ~RehearsalTrainer();

  int next_step() const { return step_; }
  // `stop`: this rank was asked to stop.
  RehearsedStep step(bool stop);

 private:
  const PipelineTimes& times() const { return plan_.times_of(at_.data); }
  void build_stage(int index);
  void reduce_gradients();
  double agree(RehearsedStep& report, bool stop);
  double finish_step(double ended);

  struct StageState;
  const Plan& plan_;
  Rank rank_;
  Coordinates at_;
  Rehearsal rehearsal_;
  ScaledTransport transport_;
  StatusPage& status_;
  Trace trace_;
  bool evaluates_;  // nothing goes back
  EmulatedDevice device_;
  std::map<int, EmulatedLink> links_;                // to other pipeline ranks
  std::vector<std::unique_ptr<StageState>> stages_;  // by chunk
  Buffer resident_;                                  // weights and optimizer state
  std::unique_ptr<Interpreter> interpreter_;
  std::vector<MicroBatchTokens> tokens_;  // empty ones
  int step_ = 0;
};

}  // namespace trireme
