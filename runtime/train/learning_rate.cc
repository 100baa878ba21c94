#include "runtime/train/learning_rate.h"

#include <cmath>

namespace trireme {

double learning_rate(const Training& training, int step) {
  if (step < training.warmup_steps)
    return training.learning_rate * (step + 1) / training.warmup_steps;
  constexpr double kPi = 3.141592653589793;
  const double span = training.steps - training.warmup_steps;
  const double progress = span > 0 ? std::fmin((step - training.warmup_steps) / span, 1.0) : 1.0;
  const double low = training.min_learning_rate;
  return low + 0.5 * (training.learning_rate - low) * (1.0 + std::cos(kPi * progress));
}

}  // namespace trireme
