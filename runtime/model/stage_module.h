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
#include "runtime/model/stage_passes.h"

namespace trireme {

// One stage of the model on one tensor rank: its weights and its passes.
//
// Weights may change while micro-batches are in flight: each of them goes back with the weights
// that it came with (weight stashing, Harlap et al. 2018). As many versions are kept as
// micro-batches in flight use, and the newest; when none is in flight, an update happens in place.
class StageModule final : public StagePasses {
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
  float* weights() { return current_->weights.data(); }
  // Where the next weights are to be written; they begin as a copy of the present ones.
  float* next_weights();
  // Call after weights were written.
  void weights_changed();
  int kept_versions() const { return static_cast<int>(versions_.size()); }
  int version(int micro_batch) const override;

  size_t boundary_floats() const override {
    return static_cast<size_t>(rows_) * setup_.model.hidden;
  }

  // The last stage's losses are then to be taken.
  Activation forward(int micro_batch, const Activation& input, std::span<const int32_t> tokens,
                     std::span<const int32_t> targets) override;
  Activation evaluate(int micro_batch, const Activation& input, std::span<const int32_t> tokens,
                      std::span<const int32_t> targets) override;
  // Sum of the token losses of each sample of a micro-batch that went forward; they are then
  // forgotten.
  std::vector<double> take_losses(int micro_batch);

  Activation backward_input(int micro_batch, const Activation& doutput) override;
  void backward_weight(int micro_batch, const GradientTarget& target,
                       const UnitDone& done) override;
  Activation backward(int micro_batch, const Activation& doutput, const GradientTarget& target,
                      const UnitDone& done) override;

 private:
  // The weights after some number of updates, and the layers that multiply with them.
  struct Version {
    int number = 0;
    Buffer weights;
    std::vector<DecoderLayer> layers;
    std::optional<Norm> final_norm;
    std::optional<Linear> head;
  };
  struct InFlight {
    Version* version = nullptr;
    std::span<const int32_t> tokens;
    std::span<const int32_t> targets;
    std::vector<DecoderLayer::Saved> layers;
    Norm::Saved final_norm;
    Activation normed;
    Activation dlogits;
    Activation dembedded;
    OwedGradients head_owed;
  };

  std::unique_ptr<Version> make_version() const;
  void add_head(Version& version, const LayerContext& context) const;
  bool in_use(const Version& version) const;
  InFlight& in_flight(int micro_batch);
  Activation pass_forward(InFlight& flight, int micro_batch, const Activation& input, bool keep);
  Activation pass_back(InFlight& flight, const Activation& doutput, const GradientTarget* now,
                       const UnitDone& done);
  Activation embed(const InFlight& flight);
  void head_forward(const Activation& x, int micro_batch, InFlight& flight);
  Activation head_backward(InFlight& flight, const GradientTarget* now);
  void embedding_gradient(InFlight& flight, const GradientTarget& target);
  int first_layer_unit() const { return setup_.stage.embedding ? 1 : 0; }

  Device& device_;
  Communicator& tensor_group_;
  Setup setup_;
  int rows_;
  StageParameters parameters_;
  Range vocabulary_;
  size_t token_table_ = 0;
  std::optional<size_t> position_table_;
  std::vector<std::unique_ptr<Version>> versions_;
  Version* current_ = nullptr;  // the newest
  std::map<int, InFlight> in_flight_;
  std::map<int, std::vector<double>> losses_;
};

}  // namespace trireme
