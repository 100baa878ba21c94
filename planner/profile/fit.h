#pragma once

#include <functional>
#include <vector>

#include "planner/profile/profile.h"

namespace trireme {

// What one short run on a single pipeline rank showed.
struct RunSample {
  int tensor = 1;
  int data = 1;
  int micro_batch = 1;
  int threads = 1;
  int layers = 1;
  StageCost op{0, 0, 0};  // of a micro-batch, all layers, embedding and head
  double cores = 1;       // that a tensor group kept busy during its ops
  double step_seconds = 0;
  double other_seconds = 0;  // of a step beside its ops
  double parameters = 0;     // of a rank
};

// What a run on two pipeline ranks showed.
struct MessageSample {
  double bytes = 0;  // of a message
  double hop_seconds = 0;
  double messages = 0;       // of a step, each of which both ranks take part in
  double other_seconds = 0;  // of a rank in a step beside its ops
  double parameters = 0;     // of a rank
};

// Which part of what embedding and head take together is the head's, 0 .. 1, by kind of op.
using HeadShare = std::function<StageCost(int tensor, int micro_batch)>;

// A line through runs that differ in their layers alone: its slope is a layer, what is left without
// layers is embedding and head. Runs of one number of layers alone would not tell them apart: at
// least two are required (TRIREME_CHECK).
std::vector<Profile::MeasuredParts> fit_parts(const std::vector<RunSample>& runs,
                                              const HeadShare& head_share);

// Least squares of the errors as shares of the step, no figure below 0.
Profile::StepEnd fit_step_end(const std::vector<RunSample>& runs);

// Lines through the sizes; one size alone is taken as latency. What a rank spends beside its ops
// and beyond the end of a step goes to its messages. None: all zero.
Profile::Message fit_message(const std::vector<MessageSample>& runs, const Profile::StepEnd& end);

// Bytes that a rank with so many fp32 gradients sends in a step: 2 (data - 1) / data of them.
double exchanged_bytes(double parameters, int data);

}  // namespace trireme
