#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/status_page.h"
#include "runtime/comm/transport.h"
#include "runtime/model/stage_module.h"
#include "runtime/train/gradient_sum.h"
#include "runtime/train/trace.h"

namespace trireme {

// The tokens of one micro-batch of the current step.
struct MicroBatchTokens {
  std::vector<int32_t> inputs;
  std::vector<int32_t> targets;
};

// Executes one rank's ordered list of Ops, whatever schedule they came from. Sends and receives
// follow from the Ops and the places of the stages: an op's input comes from the neighbouring
// stage, over the network when that stage lives on another pipeline rank, handed over directly when
// it lives on this one. Receives are posted a few ops ahead; sends leave while the next op runs.
class Interpreter {
 public:
  struct Setup {
    const Plan* plan = nullptr;
    int pipeline_rank = 0;
    std::vector<Rank> pipeline;           // the pipeline group's ranks
    std::vector<StageModule*> stages;     // this rank's, by chunk
    std::vector<GradientSum*> gradients;  // likewise
  };
  Interpreter(Device& device, Transport& transport, Trace& trace, StatusPage& status, Setup setup);

  // One step. `tokens` holds every micro-batch of the replica and must stay until the call returns.
  void run(const std::vector<MicroBatchTokens>& tokens);

 private:
  struct Message {
    int stage;  // that consumes it
    int micro_batch;
    bool gradient;  // of the stage's output, else its input
    bool operator<(const Message& other) const;
  };
  struct Arriving {
    Activation data;
    std::unique_ptr<Work> work;
  };

  bool needs_message(const Op& op, Message& message) const;
  bool is_local(int stage) const;
  void post_receives(size_t position);
  Activation take(const Op& op);
  void hand_over(Activation data, Message message, int to_stage);
  void execute(const Op& op, const std::vector<MicroBatchTokens>& tokens);
  void finish_gradient(const Op& op, Activation dinput);
  void note(const Op& op, StatusPage::Doing doing, int peer);
  Rank owner(int stage) const;

  Device& device_;
  Transport& transport_;
  Trace& trace_;
  StatusPage& status_;
  Setup setup_;
  const std::vector<Op>& ops_;
  size_t posted_ = 0;  // ops whose receives have been posted
  std::map<Message, Arriving> arriving_;
  std::map<Message, Activation> handed_over_;
};

}  // namespace trireme
