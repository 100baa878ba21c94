#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/status_page.h"
#include "runtime/comm/transport.h"
#include "runtime/model/stage_passes.h"
#include "runtime/train/gradient_sum.h"
#include "runtime/train/trace.h"

namespace trireme {

// The tokens of one micro-batch.
struct MicroBatchTokens {
  std::vector<int32_t> inputs;
  std::vector<int32_t> targets;
};

// Executes one rank's ordered list of Ops, whatever schedule they came from. Sends and receives
// follow from the Ops and the places of the stages: an op's input comes from the neighbouring
// stage, over the network when that stage lives on another pipeline rank, handed over directly when
// it lives on this one. Receives are posted a few ops ahead; sends leave while the next op runs.
//
// An overlapped pair begins when the inputs of both its ops are there; nothing else is waited for
// until it ends, and what the first op produces travels while the second computes. Their kernels
// run one after the other, in the order of the plan.
class Interpreter {
 public:
  struct Setup {
    const Plan* plan = nullptr;
    int pipeline_rank = 0;
    int micro_batches = 1;                // of this replica in a step
    std::vector<Rank> pipeline;           // the pipeline group's ranks
    std::vector<StagePasses*> stages;     // this rank's, by chunk
    std::vector<GradientSum*> gradients;  // likewise
    bool evaluates = false;               // nothing will go back: forwards keep nothing
    // Called when all gradients of a micro-batch are complete; may be empty.
    std::function<void(int chunk, int micro_batch)> gradients_done;
  };
  Interpreter(Device& device, Transport& transport, Trace& trace, StatusPage& status, Setup setup);

  // Runs `ops` in order; their micro-batches index `tokens`, which must stay until the last pass of
  // each. Micro-batches may be left in flight for a later call.
  void run(const std::vector<Op>& ops, const std::vector<MicroBatchTokens>& tokens);

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
  void post_receive(const Op& op);
  Activation take(const Op& op);
  void hand_over(Activation data, Message message, int to_stage);
  void execute(const Op& op, Activation input, const MicroBatchTokens& tokens);
  Activation compute(const Op& op, const Activation& input, const MicroBatchTokens& tokens);
  void note(const Op& op, StatusPage::Doing doing, int peer);
  // The op with its number in the plan.
  Op planned(Op op) const;
  Rank owner(int stage) const;
  int chunk_of(int stage) const { return setup_.plan->schedule.stages[stage].chunk; }

  Device& device_;
  Transport& transport_;
  Trace& trace_;
  StatusPage& status_;
  Setup setup_;
  std::map<Message, Arriving> arriving_;
  std::map<Message, Activation> handed_over_;
};

}  // namespace trireme
