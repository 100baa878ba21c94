#pragma once

#include "planner/plan/job.h"

namespace trireme {

// The learning rate of step `step`, counted from 0: rises in equal parts to its peak over
// `warmup_steps` (step 0 has one part already), then falls along a half cosine that would reach the
// minimum at step `steps` (Loshchilov & Hutter 2017, eq. 5).
double learning_rate(const Training& training, int step);

}  // namespace trireme
