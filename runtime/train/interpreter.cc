#include "runtime/train/interpreter.h"

#include <fmt/format.h>
#include <tuple>

#include "runtime/comm/communicator.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

// How many ops ahead receives are posted: enough to keep the network busy during one op, little
// enough to bound memory.
constexpr size_t kReceivesAhead = 4;

uint64_t message_tag(int stage, int micro_batch, bool gradient) {
  return make_tag(TagSpace::pipeline, (static_cast<uint64_t>(stage) << 33) |
                                          (static_cast<uint64_t>(micro_batch) << 1) |
                                          (gradient ? 1 : 0));
}

}  // namespace

bool Interpreter::Message::operator<(const Message& other) const {
  return std::tie(stage, micro_batch, gradient) <
         std::tie(other.stage, other.micro_batch, other.gradient);
}

Interpreter::Interpreter(Device& device, Transport& transport, Trace& trace, StatusPage& status,
                         Setup setup)
    : device_(device),
      transport_(transport),
      trace_(trace),
      status_(status),
      setup_(std::move(setup)),
      ops_(setup_.plan->schedule.ranks[setup_.pipeline_rank]) {}

Rank Interpreter::owner(int stage) const {
  return setup_.pipeline[setup_.plan->schedule.stages[stage].rank];
}

bool Interpreter::is_local(int stage) const {
  return setup_.plan->schedule.stages[stage].rank == setup_.pipeline_rank;
}

// What an op waits for from a neighbouring stage, if anything. A weight gradient needs nothing but
// its own stage's past.
bool Interpreter::needs_message(const Op& op, Message& message) const {
  const int last = static_cast<int>(setup_.plan->stages.size()) - 1;
  message = {op.stage, op.micro_batch, op.kind != OpKind::forward};
  if (op.kind == OpKind::forward) return op.stage > 0;
  return op.kind != OpKind::backward_weight && op.stage < last;
}

void Interpreter::post_receives(size_t position) {
  for (; posted_ < ops_.size() && posted_ <= position + kReceivesAhead; ++posted_) {
    const Op& op = ops_[posted_];
    Message message{};
    if (!needs_message(op, message)) continue;
    const int from = message.gradient ? op.stage + 1 : op.stage - 1;
    if (is_local(from)) continue;
    const StageModule& stage = *setup_.stages[setup_.plan->schedule.stages[op.stage].chunk];
    Arriving arriving{device_.activation(stage.boundary_floats()), nullptr};
    arriving.work = transport_.receive(
        owner(from), message_tag(message.stage, message.micro_batch, message.gradient),
        arriving.data->span());
    arriving_.emplace(message, std::move(arriving));
  }
}

void Interpreter::note(const Op& op, StatusPage::Doing doing, int peer) {
  status_.op_kind = static_cast<int32_t>(op.kind);
  status_.stage = op.stage;
  status_.micro_batch = op.micro_batch;
  status_.peer = peer;
  status_.doing = static_cast<int32_t>(doing);
}

Activation Interpreter::take(const Op& op) {
  Message message{};
  if (!needs_message(op, message)) return nullptr;
  if (const auto here = handed_over_.find(message); here != handed_over_.end()) {
    Activation data = std::move(here->second);
    handed_over_.erase(here);
    return data;
  }
  const auto found = arriving_.find(message);
  TRIREME_CHECK(found != arriving_.end());
  const int from = message.gradient ? op.stage + 1 : op.stage - 1;
  note(op, StatusPage::Doing::receiving, owner(from).value);
  const double begin = Trace::now();
  found->second.work->wait();
  trace_.add(Trace::Kind::receive, fmt::format("receive for {}", to_string(op)), begin,
             Trace::now());
  Activation data = std::move(found->second.data);
  arriving_.erase(found);
  return data;
}

void Interpreter::hand_over(Activation data, Message message, int to_stage) {
  if (is_local(to_stage)) {
    handed_over_[message] = std::move(data);
    return;
  }
  const double begin = Trace::now();
  device_.synchronize();
  transport_.send(owner(to_stage),
                  message_tag(message.stage, message.micro_batch, message.gradient), data->span(),
                  data);
  trace_.add(
      Trace::Kind::send,
      fmt::format("send for {}{}{}", to_stage, message.gradient ? 'B' : 'F', message.micro_batch),
      begin, Trace::now());
}

void Interpreter::finish_gradient(const Op& op, Activation dinput) {
  if (op.stage > 0)
    hand_over(std::move(dinput), {op.stage - 1, op.micro_batch, true}, op.stage - 1);
}

void Interpreter::execute(const Op& op, const std::vector<MicroBatchTokens>& tokens) {
  const int chunk = setup_.plan->schedule.stages[op.stage].chunk;
  StageModule& stage = *setup_.stages[chunk];
  GradientSum& sum = *setup_.gradients[chunk];
  const int m = op.micro_batch;
  Activation input = take(op);
  note(op, StatusPage::Doing::op, -1);
  const double begin = Trace::now();
  Activation output;
  if (op.kind == OpKind::forward) {
    output = stage.forward(m, input, tokens[m].inputs, tokens[m].targets);
  } else {
    const GradientTarget target{sum.target(m), sum.accumulates()};
    const auto done = [&](int unit) { sum.unit_done(m, unit); };
    if (op.kind == OpKind::backward) output = stage.backward(m, input, target, done);
    if (op.kind == OpKind::backward_input) output = stage.backward_input(m, input, target);
    if (op.kind == OpKind::backward_weight) stage.backward_weight(m, target, done);
  }
  device_.synchronize();
  trace_.add_op(op, begin, Trace::now());
  if (op.kind == OpKind::forward) {
    if (output != nullptr) hand_over(std::move(output), {op.stage + 1, m, false}, op.stage + 1);
  } else if (op.kind != OpKind::backward_weight) {
    finish_gradient(op, std::move(output));
  }
}

void Interpreter::run(const std::vector<MicroBatchTokens>& tokens) {
  posted_ = 0;
  for (size_t position = 0; position < ops_.size(); ++position) {
    post_receives(position);
    execute(ops_[position], tokens);
  }
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
}

}  // namespace trireme
