#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "planner/plan/plan.h"
#include "planner/plan/run_directory.h"
#include "planner/plan/status_page.h"
#include "runtime/comm/communicator.h"
#include "runtime/data/token_source.h"
#include "runtime/model/stage_module.h"
#include "runtime/train/interpreter.h"

namespace trireme {

// Deliberate faults for the tests that show that the parity tests would notice them.
struct Mutations {
  bool count_replicated_norms_on_every_tensor_rank = false;
  bool skip_tied_embedding_sum = false;
};

struct StepReport {
  int step = 0;                         // from 0
  double loss = 0;                      // mean over all tokens of the global batch
  std::optional<double> grad_norm;      // before clipping; only where one update ends the step
  std::optional<double> learning_rate;  // none where nothing is updated
  double seconds = 0;
  double busy_seconds = 0;    // this rank, in ops
  double window_seconds = 0;  // this rank, first op's begin to last op's end
  bool stop = false;          // some rank was asked to stop
};

// What a schedule makes of a step.
enum class StepKind {
  synchronous,   // all backwards, then one update
  asynchronous,  // an update after every backward (Schedule::asynchronous)
  evaluation     // forwards alone: losses, and no weight changes
};
StepKind step_kind(const Schedule& schedule);

// One rank of a training run: everything between a Plan and its numbers. All ranks construct it and
// call its functions together. Device and transport must outlive it. Not thread-safe.
//
// An asynchronous run is one stream of micro-batches: each is a batch of its own for the optimizer,
// each stage updates its own weights after each of its backwards and clips by the norm of its own
// gradient, and the forwards that begin the next step have already run when a step ends. The stream
// is drained before each checkpoint, at the end, and one step after somebody asked to stop.
class Trainer {
 public:
  struct Options {
    std::string trace_path;       // empty: no trace
    std::string checkpoint_path;  // resume from this checkpoint directory; empty: from
                                  // plan.job.weights or the seed
    Mutations mutations;
    // Told what the user should know, on one rank; may be empty.
    std::function<void(const std::string& note)> note = {};
  };
  // Throws Error(bad_input) for what cannot be trained on: data, also where ranks find different
  // data, weights or a checkpoint.
  Trainer(const Plan& plan, Rank rank, Device& device, Transport& transport, StatusPage& status,
          const Options& options);
  ~Trainer();

  int next_step() const { return step_; }
  // One step; the same report on every rank, but for this rank's own seconds. `stop`: this rank was
  // asked to stop. Throws Error(failed) where the loss or the norm of the gradients is no finite
  // number, before it spoils the weights of a checkpoint.
  StepReport step(bool stop);
  // See save_checkpoint. Nothing is written after an evaluation. An asynchronous run saves where it
  // was drained.
  std::optional<std::string> save(const RunDirectory& run);

  // For tests: this rank's stages with their weights, and the gradients of the last step as the
  // optimizer saw them, before clipping.
  struct StageView {
    const StageParameters* parameters;
    const float* weights;
    const float* gradients;
  };
  std::vector<StageView> stages() const;

 private:
  struct StageState;
  void build_stages();
  void load_weights();
  void load_checkpoint(const std::string& directory);
  void require_common_data();
  void note_other_data(const TokenSource::Identity& of_checkpoint);
  void note(const std::string& text) const;
  std::vector<Op> ops_of_step(bool drain) const;
  bool must_drain() const;
  void load_tokens(int step);
  void reduce_gradients();
  void sum_tied();
  std::vector<double> square_norms(const StageState& stage) const;
  std::vector<double> local_square_norms() const;
  double local_loss();
  void agree(StepReport& report, bool stop);
  void update_at_end(const StepReport& report);
  void update_in_stream(int chunk, int micro_batch);

  const Plan& plan_;
  Rank rank_;
  Coordinates at_;
  Device& device_;
  Transport& transport_;
  StatusPage& status_;
  Options options_;
  Trace trace_;
  TokenSource data_;
  std::unique_ptr<Communicator> tensor_group_;
  std::unique_ptr<Communicator> data_group_;
  std::unique_ptr<Communicator> model_group_;  // tensor and pipeline ranks of this data replica
  std::vector<std::unique_ptr<StageState>> stages_;  // by chunk
  std::unique_ptr<Interpreter> interpreter_;
  std::vector<std::string> parameter_order_;
  std::vector<MicroBatchTokens> tokens_;  // of this step; of a stream, of the next one as well
  StepKind kind_;
  int step_ = 0;
  bool filled_ = false;    // micro-batches of the step to come are in flight
  bool stopping_ = false;  // somebody wished it while the stream could not be stopped any more
};

}  // namespace trireme
