#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "planner/plan/plan.h"
#include "runtime/model/decoder_layer.h"

namespace trireme {

// One stage of the model on one tensor rank: its weights and the forward, input-gradient and
// weight-gradient passes of any number of micro-batches in flight. Knows nothing of schedules,
// pipelines or data replicas. Not thread-safe.
class StageModule {
 public:
  struct Setup {
    Model model;
    Stage stage;
    int tensor = 1;
    int tensor_index = 0;
    int micro_batch = 1;  // samples
    bool reuse_weights = false;
    float loss_scale = 1;  // the gradient is that of loss_scale * sum of all token losses
  };
  StageModule(Device& device, Communicator& tensor_group, const Setup& setup);

  const StageParameters& parameters() const { return parameters_; }
  const Stage& stage() const { return setup_.stage; }
  float* weights() { return weights_.data(); }
  // Call after weights() were written.
  void weights_changed();

  // Floats of one activation between stages.
  size_t boundary_floats() const { return static_cast<size_t>(rows_) * setup_.model.hidden; }

  // `tokens`: micro_batch * sequence inputs, needed with an embedding; `targets`: as many, needed
  // with a head; both host memory that must stay until the micro-batch's last pass. `input` is
  // empty for the first stage. Returns the output, or nothing from the last stage, whose losses are
  // then in losses().
  Activation forward(int micro_batch, const Activation& input, std::span<const int32_t> tokens,
                     std::span<const int32_t> targets);
  // Sum of the token losses of each sample of a micro-batch that went through forward().
  std::vector<double> losses(int micro_batch) const { return losses_.at(micro_batch); }
  void forget_losses() { losses_.clear(); }
  // Drops what forward() kept, for a pass that has no backward.
  void forget(int micro_batch) { in_flight_.erase(micro_batch); }

  // Told when the gradients of a unit (StageParameters) are complete for the micro-batch at hand.
  using UnitDone = std::function<void(int unit)>;

  // The gradient of the stage's input (empty for the first stage), given that of its output (empty
  // for the last).
  Activation backward_input(int micro_batch, const Activation& doutput,
                            const GradientTarget& target);
  // The weight gradients that backward_input left.
  void backward_weight(int micro_batch, const GradientTarget& target, const UnitDone& done);
  // Both, unit by unit.
  Activation backward(int micro_batch, const Activation& doutput, const GradientTarget& target,
                      const UnitDone& done);

 private:
  struct InFlight {
    std::span<const int32_t> tokens;
    std::span<const int32_t> targets;
    std::vector<DecoderLayer::Saved> layers;
    Norm::Saved final_norm;
    Activation normed;
    Activation dlogits;
    Activation dembedded;
    WeightWorkList head_owed;
  };

  Activation pass_back(int micro_batch, const Activation& doutput, const GradientTarget& target,
                       bool with_weights, const UnitDone& done);
  Activation embed(std::span<const int32_t> tokens);
  void head_forward(const Activation& x, int micro_batch, InFlight& flight);
  Activation head_backward(InFlight& flight, const GradientTarget& target, bool with_weights);
  void embedding_gradient(InFlight& flight, const GradientTarget& target);
  int first_layer_unit() const { return setup_.stage.embedding ? 1 : 0; }

  Device& device_;
  Communicator& tensor_group_;
  Setup setup_;
  int rows_;
  StageParameters parameters_;
  Buffer weights_;
  std::vector<DecoderLayer> layers_;
  std::optional<Norm> final_norm_;
  std::optional<Linear> head_;
  size_t head_gradient_ = 0;  // where the gradient of the head's matrix goes
  Range vocabulary_;
  size_t token_table_ = 0;
  std::optional<size_t> position_table_;
  std::map<int, InFlight> in_flight_;
  std::map<int, std::vector<double>> losses_;
};

}  // namespace trireme
