#include "runtime/train/stage_optimizer.h"

#include <cmath>

namespace trireme {

StageOptimizer::StageOptimizer(Device& device, const StageParameters& parameters)
    : device_(device),
      momentum_(device.allocate(parameters.weight_count)),
      variance_(device.allocate(parameters.weight_count)) {
  device.zero(momentum_.data(), momentum_.size());
  device.zero(variance_.data(), variance_.size());
}

void StageOptimizer::update(StageModule& stage, const float* gradients, const Training& training,
                            const Update& update) {
  AdamW settings;
  settings.learning_rate = static_cast<float>(update.learning_rate);
  settings.beta1 = static_cast<float>(training.beta1);
  settings.beta2 = static_cast<float>(training.beta2);
  settings.epsilon = static_cast<float>(training.epsilon);
  settings.step = update.count;
  if (training.clip_grad > 0) {
    settings.gradient_scale =
        static_cast<float>(std::fmin(1.0, training.clip_grad / (update.norm + 1e-6)));
  }
  float* weights = stage.next_weights();
  for (const auto& spec : stage.parameters().specs) {
    settings.weight_decay = spec.decays ? static_cast<float>(training.weight_decay) : 0.0F;
    device_.adamw(weights + spec.offset, momentum_.data() + spec.offset,
                  variance_.data() + spec.offset, gradients + spec.offset, spec.local_count(),
                  settings);
  }
  stage.weights_changed();
}

}  // namespace trireme
