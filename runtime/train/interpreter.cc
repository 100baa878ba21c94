#include "runtime/train/interpreter.h"

#include <fmt/format.h>
#include <tuple>
#include <utility>

#include "runtime/comm/communicator.h"
#include "runtime/model/layer_context.h"
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
      setup_(std::move(setup)) {}

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

void Interpreter::post_receive(const Op& op) {
  Message message{};
  if (!needs_message(op, message)) return;
  const int from = message.gradient ? op.stage + 1 : op.stage - 1;
  if (is_local(from)) return;
  const StagePasses& stage = *setup_.stages[chunk_of(op.stage)];
  Arriving arriving{device_.activation(stage.boundary_floats()), nullptr};
  arriving.work = transport_.receive(
      owner(from), message_tag(message.stage, message.micro_batch, message.gradient),
      arriving.data->span());
  arriving_.emplace(message, std::move(arriving));
}

Op Interpreter::planned(Op op) const {
  op.micro_batch %= setup_.micro_batches;
  return op;
}

void Interpreter::note(const Op& op, StatusPage::Doing doing, int peer) {
  status_.op_kind = static_cast<int32_t>(op.kind);
  status_.stage = op.stage;
  status_.micro_batch = planned(op).micro_batch;
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
  trace_.add(Trace::Kind::receive, fmt::format("receive for {}", to_string(planned(op))), begin,
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
  const Op served = planned({message.gradient ? OpKind::backward : OpKind::forward, false, to_stage,
                             message.micro_batch});
  trace_.add(Trace::Kind::send, fmt::format("send for {}", to_string(served)), begin, Trace::now());
}

Activation Interpreter::compute(const Op& op, const Activation& input,
                                const MicroBatchTokens& tokens) {
  StagePasses& stage = *setup_.stages[chunk_of(op.stage)];
  GradientSum& sum = *setup_.gradients[chunk_of(op.stage)];
  const int m = op.micro_batch;
  const auto target = [&] { return GradientTarget{sum.target(m), sum.accumulates()}; };
  const auto done = [&](int unit) { sum.unit_done(m, unit); };
  switch (op.kind) {
    case OpKind::forward:
      return setup_.evaluates ? stage.evaluate(m, input, tokens.inputs, tokens.targets)
                              : stage.forward(m, input, tokens.inputs, tokens.targets);
    case OpKind::backward:
      return stage.backward(m, input, target(), done);
    case OpKind::backward_input:
      return stage.backward_input(m, input);
    case OpKind::backward_weight:
      stage.backward_weight(m, target(), done);
  }
  return nullptr;
}

void Interpreter::execute(const Op& op, Activation input, const MicroBatchTokens& tokens) {
  const int m = op.micro_batch;
  note(op, StatusPage::Doing::op, -1);
  std::optional<int> version;
  if (setup_.plan->schedule.asynchronous) version = setup_.stages[chunk_of(op.stage)]->version(m);
  const double begin = Trace::now(), cpu = Trace::processor_time();
  Activation output = compute(op, input, tokens);
  input.reset();
  device_.synchronize();
  trace_.add_op(planned(op), version, begin, Trace::now(), Trace::processor_time() - cpu);
  if (output != nullptr) {
    const bool gradient = op.kind != OpKind::forward;
    const int to_stage = gradient ? op.stage - 1 : op.stage + 1;
    hand_over(std::move(output), {to_stage, m, gradient}, to_stage);
  }
  const bool complete = op.kind == OpKind::backward || op.kind == OpKind::backward_weight;
  if (complete && setup_.gradients_done) setup_.gradients_done(chunk_of(op.stage), m);
}

void Interpreter::run(const std::vector<Op>& ops, const std::vector<MicroBatchTokens>& tokens) {
  size_t posted = 0;
  for (size_t position = 0; position < ops.size();) {
    for (; posted < ops.size() && posted <= position + kReceivesAhead; ++posted)
      post_receive(ops[posted]);
    const Op& first = ops[position++];
    Activation input = take(first);
    if (!first.overlaps_next) {
      execute(first, std::move(input), tokens[first.micro_batch]);
      continue;
    }
    const Op& second = ops[position++];
    Activation second_input = take(second);
    const double begin = Trace::now();
    execute(first, std::move(input), tokens[first.micro_batch]);
    execute(second, std::move(second_input), tokens[second.micro_batch]);
    const auto name = fmt::format("({};{})", to_string(planned(first)), to_string(planned(second)));
    trace_.add(Trace::Kind::pair, name, begin, Trace::now());
  }
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
}

}  // namespace trireme
