#include "tests/runtime/delayed_updates.h"

#include <algorithm>
#include <cmath>

#include "runtime/comm/memory_transport.h"
#include "runtime/data/token_source.h"
#include "runtime/model/stage_module.h"
#include "runtime/train/learning_rate.h"

namespace trireme::test {
namespace {

using Floats = std::vector<float>;

// One stage with every version of its weights since the beginning.
struct DelayedStage {
  DelayedStage(Device& device, Communicator& alone, const Plan& plan, int number)
      : module(device, alone, setup_for(plan, number)) {
    Floats weights(module.parameters().weight_count);
    for (const auto& spec : module.parameters().specs)
      initialize(spec, plan.job.training.seed, weights.data() + spec.offset);
    versions.push_back(weights);
    momentum.resize(weights.size());
    variance.resize(weights.size());
  }
  static StageModule::Setup setup_for(const Plan& plan, int number) {
    StageModule::Setup setup;
    setup.model = plan.job.model;
    setup.stage = plan.stages[number];
    setup.micro_batch = plan.layout.micro_batch;
    const int batch = plan.layout.data * plan.layout.micro_batch;
    setup.loss_scale = static_cast<float>(1.0 / (1.0 * batch * plan.job.model.sequence));
    return setup;
  }
  void use(int version) {
    std::copy(versions[version].begin(), versions[version].end(), module.weights());
    module.weights_changed();
  }
  StageModule module;
  std::vector<Floats> versions;
  Floats momentum;
  Floats variance;
  Floats gradient;  // summed over the replicas
};

class Emulation {
 public:
  explicit Emulation(const Plan& plan)
      : plan_(plan),
        data_(plan.job.data, plan.job.model.sequence, plan.job.model.vocab, plan.job.training.seed),
        transport_(world_.transport(Rank(0))),
        alone_(make_message_communicator(*transport_, {Rank(0)}, 0)) {
    for (int s = 0; s < plan.layout.stages(); ++s)
      stages_.push_back(std::make_unique<DelayedStage>(*device_, *alone_, plan, s));
  }

  DelayedUpdates train() {
    DelayedUpdates result;
    const int every = plan_.job.checkpoint.every;
    for (int step = 0; step < plan_.job.training.steps; ++step) {
      if (every > 0 && step % every == 0) drained_ = step * plan_.layout.micro_batches;
      result.losses.push_back(run_step(step));
    }
    for (const auto& stage : stages_) {
      for (const auto& spec : stage->module.parameters().specs) {
        const float* from = stage->versions.back().data() + spec.offset;
        result.weights[spec.name].assign(from, from + spec.local_count());
      }
    }
    return result;
  }

 private:
  double run_step(int step) {
    const int m = plan_.layout.micro_batches;
    std::vector<double> losses(plan_.job.training.global_batch);
    for (int i = step * m; i < (step + 1) * m; ++i) {
      for (size_t s = 0; s < stages_.size(); ++s) {
        const int depth = std::min(static_cast<int>(stages_.size() - s), m);
        stages_[s]->use(drained_ + std::max(0, i - drained_ - (depth - 1)));
      }
      for (int replica = 0; replica < plan_.layout.data; ++replica)
        there_and_back(step, i % m, replica, losses);
      for (auto& stage : stages_) update(*stage, step, i);
    }
    double total = 0;
    for (const double loss : losses) total += loss;
    return total /
           (static_cast<double>(plan_.job.training.global_batch) * plan_.job.model.sequence);
  }

  void there_and_back(int step, int m, int replica, std::vector<double>& losses) {
    const auto sequence = static_cast<size_t>(plan_.job.model.sequence);
    const int samples = plan_.layout.micro_batch;
    const int first = (replica * plan_.layout.micro_batches + m) * samples;
    std::vector<int32_t> inputs(samples * sequence);
    std::vector<int32_t> targets(samples * sequence);
    for (int b = 0; b < samples; ++b) {
      const uint64_t number =
          static_cast<uint64_t>(step) * plan_.job.training.global_batch + first + b;
      data_.sample(number, inputs.data() + b * sequence, targets.data() + b * sequence);
    }
    Activation x;
    for (auto& stage : stages_) x = stage->module.forward(0, x, inputs, targets);
    const auto own = stages_.back()->module.take_losses(0);
    std::copy(own.begin(), own.end(), losses.begin() + first);
    Activation d;
    for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
      Floats gradient((*stage)->module.parameters().gradient_count);
      d = (*stage)->module.backward(0, d, {gradient.data(), false}, [](int) {});
      if (replica == 0) (*stage)->gradient = gradient;
      if (replica > 0) device_->add((*stage)->gradient.data(), gradient.data(), gradient.size());
    }
  }

  void update(DelayedStage& stage, int step, int i) {
    const Training& training = plan_.job.training;
    AdamW settings;
    settings.learning_rate = static_cast<float>(learning_rate(training, step));
    settings.beta1 = static_cast<float>(training.beta1);
    settings.beta2 = static_cast<float>(training.beta2);
    settings.epsilon = static_cast<float>(training.epsilon);
    settings.step = i + 1;
    const auto& specs = stage.module.parameters().specs;
    double squares = 0;
    for (const auto& spec : specs)
      squares += device_->squared_norm(stage.gradient.data() + spec.offset, spec.local_count());
    if (training.clip_grad > 0) {
      settings.gradient_scale =
          static_cast<float>(std::fmin(1.0, training.clip_grad / (std::sqrt(squares) + 1e-6)));
    }
    Floats next = stage.versions.back();
    for (const auto& spec : specs) {
      settings.weight_decay = spec.decays ? static_cast<float>(training.weight_decay) : 0.0F;
      device_->adamw(next.data() + spec.offset, stage.momentum.data() + spec.offset,
                     stage.variance.data() + spec.offset, stage.gradient.data() + spec.offset,
                     spec.local_count(), settings);
    }
    stage.versions.push_back(std::move(next));
  }

  const Plan& plan_;
  TokenSource data_;
  MemoryWorld world_{1};
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Communicator> alone_;
  std::vector<std::unique_ptr<DelayedStage>> stages_;
  int drained_ = 0;  // micro-batches before the last drain
};

}  // namespace

DelayedUpdates train_with_delayed_updates(const Plan& plan) {
  return Emulation(plan).train();
}

}  // namespace trireme::test
