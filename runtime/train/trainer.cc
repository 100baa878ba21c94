#include "runtime/train/trainer.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/model_files.h"
#include "runtime/train/learning_rate.h"
#include "runtime/train/stage_optimizer.h"
#include "runtime/train/stream.h"
#include "runtime/train/tied_embeddings.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

// Buckets of at least this many floats (4 MiB): big enough for bandwidth, small enough to start
// early.
constexpr size_t kBucketFloats = 1 << 20;

// Packing a weight pays from this many micro-batches per step on. Counted over all replicas, so
// that the decision, and with it every bit, is the same at every layout.
constexpr int kReuseFromMicroBatches = 3;

enum Channel { kTensorChannel = 1, kDataChannel, kModelChannel };

std::vector<Rank> model_ranks(const Layout& layout, int data) {
  std::vector<Rank> ranks;
  for (int p = 0; p < layout.pipeline; ++p) {
    for (int t = 0; t < layout.tensor; ++t) ranks.push_back(rank_at(layout, {t, data, p}));
  }
  return ranks;
}

// Doubles travel in pairs of floats, bit by bit.
std::vector<double> gather_doubles(Communicator& group, const std::vector<double>& mine) {
  std::vector<float> out(2 * mine.size());
  std::memcpy(out.data(), mine.data(), mine.size() * sizeof(double));
  std::vector<float> in(out.size() * group.size());
  group.all_gather(out, in);
  std::vector<double> all(mine.size() * group.size());
  std::memcpy(all.data(), in.data(), all.size() * sizeof(double));
  return all;
}

// The bits of two sums agree only if everybody adds in the same order: parameter by parameter,
// member by member.
double norm_of(const std::vector<double>& squares, size_t parameters, size_t stride) {
  double sum = 0;
  for (size_t i = 0; i < parameters; ++i) {
    for (size_t at = i; at < squares.size(); at += stride) sum += squares[at];
  }
  return std::sqrt(sum);
}

// Clipping by a norm that is no number would spoil all weights, and the next checkpoints with them.
void require_finite(int step, const char* what, double value) {
  if (std::isfinite(value)) return;
  throw Error(ErrorKind::failed,
              fmt::format("step {} diverged: {} is {}", step + 1, what, std::abs(value)));
}

}  // namespace

StepKind step_kind(const Schedule& schedule) {
  if (schedule.asynchronous) return StepKind::asynchronous;
  const auto goes_back = [](const Op& op) { return op.kind != OpKind::forward; };
  const auto trains = [&](const auto& row) {
    return std::any_of(row.begin(), row.end(), goes_back);
  };
  const auto& rows = schedule.ranks;
  return std::any_of(rows.begin(), rows.end(), trains) ? StepKind::synchronous
                                                       : StepKind::evaluation;
}

struct Trainer::StageState {
  StageState(Device& device, Communicator& tensor_group, const StageModule::Setup& setup)
      : module(device, tensor_group, setup), optimizer(device, module.parameters()) {}
  StageModule module;
  StageOptimizer optimizer;
  std::unique_ptr<GradientSum> sum;
  float* gradients = nullptr;  // of the last step
};

Trainer::Trainer(const Plan& plan, Rank rank, Device& device, Transport& transport,
                 StatusPage& status, const Options& options)
    : plan_(plan),
      rank_(rank),
      at_(coordinates_of(plan.layout, rank)),
      device_(device),
      transport_(transport),
      status_(status),
      options_(options),
      trace_(options.trace_path, rank.value, rank_name(plan, rank)),
      data_(plan.job.data, plan.job.model.sequence, plan.job.model.vocab, plan.job.training.seed),
      tensor_group_(
          make_message_communicator(transport, tensor_group(plan.layout, rank), kTensorChannel)),
      data_group_(
          make_message_communicator(transport, data_group(plan.layout, rank), kDataChannel)),
      model_group_(
          make_message_communicator(transport, model_ranks(plan.layout, at_.data), kModelChannel)),
      kind_(step_kind(plan.schedule)) {
  status_.doing = static_cast<int32_t>(StatusPage::Doing::loading);
  for (const auto& spec : all_parameters(plan.job.model)) parameter_order_.push_back(spec.name);
  require_common_data();
  build_stages();
  if (options_.checkpoint_path.empty()) {
    load_weights();
  } else {
    load_checkpoint(options_.checkpoint_path);
  }
  for (auto& stage : stages_) stage->module.weights_changed();
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
}

Trainer::~Trainer() = default;

void Trainer::build_stages() {
  const Layout& layout = plan_.layout;
  const Training& training = plan_.job.training;
  const bool stream = kind_ == StepKind::asynchronous;
  const int batch = stream ? layout.data * layout.micro_batch : training.global_batch;
  const double tokens = static_cast<double>(batch) * plan_.job.model.sequence;
  const int micro_batches = layout.micro_batches_of(at_.data);
  tokens_.resize(stream ? 2 * micro_batches : micro_batches);
  Interpreter::Setup interpreter;
  interpreter.plan = &plan_;
  interpreter.pipeline_rank = at_.pipeline;
  interpreter.micro_batches = micro_batches;
  interpreter.pipeline = pipeline_group(layout, rank_);
  interpreter.evaluates = kind_ == StepKind::evaluation;
  if (stream) {
    interpreter.gradients_done = [this](int chunk, int micro_batch) {
      update_in_stream(chunk, micro_batch);
    };
  }
  for (int chunk = 0; chunk < layout.chunks; ++chunk) {
    const StagePlace place{at_.pipeline, chunk};
    const auto found = std::find(plan_.schedule.stages.begin(), plan_.schedule.stages.end(), place);
    TRIREME_CHECK(found != plan_.schedule.stages.end());
    const auto index = static_cast<int>(found - plan_.schedule.stages.begin());
    StageModule::Setup setup;
    setup.model = plan_.job.model;
    setup.stage = plan_.stages[index];
    setup.tensor = layout.tensor;
    setup.tensor_index = at_.tensor;
    setup.micro_batch = layout.micro_batch;
    // Each version of a stream's weights multiplies forward once and back once.
    setup.reuse_weights = !stream && batch / layout.micro_batch >= kReuseFromMicroBatches;
    setup.loss_scale = static_cast<float>(1.0 / tokens);
    auto state = std::make_unique<StageState>(device_, *tensor_group_, setup);
    state->sum = std::make_unique<GradientSum>(
        device_, transport_, state->module.parameters(),
        GradientSum::Setup{training.reduction_on(true), stream ? 1 : micro_batches, at_.data,
                           data_group(layout, rank_), index, kBucketFloats});
    interpreter.stages.push_back(&state->module);
    interpreter.gradients.push_back(state->sum.get());
    stages_.push_back(std::move(state));
  }
  interpreter_ =
      std::make_unique<Interpreter>(device_, transport_, trace_, status_, std::move(interpreter));
}

void Trainer::load_weights() {
  std::unique_ptr<ModelFiles> files;
  if (!plan_.job.weights.empty())
    files = std::make_unique<ModelFiles>(plan_.job.weights, plan_.job.model);
  for (auto& stage : stages_) {
    for (const auto& spec : stage->module.parameters().specs) {
      std::vector<float> values(spec.local_count());
      if (files != nullptr) {
        files->read(spec, values.data());
      } else {
        initialize(spec, plan_.job.training.seed, values.data());
      }
      device_.copy_from_host(stage->module.weights() + spec.offset, values.data(), values.size());
    }
  }
}

// Files may grow or be replaced while ranks start, and every node may have its own: inputs and
// targets would then come from different texts.
void Trainer::require_common_data() {
  const TokenSource::Identity own = data_.identity();
  const std::vector<double> mine = {static_cast<double>(own.tokens), static_cast<double>(own.mark)};
  for (Communicator* group : {model_group_.get(), data_group_.get()}) {
    const std::vector<double> all = gather_doubles(*group, mine);
    for (size_t i = 0; i < all.size(); i += mine.size()) {
      if (std::equal(mine.begin(), mine.end(), all.begin() + static_cast<std::ptrdiff_t>(i))) {
        continue;
      }
      throw Error(ErrorKind::bad_input,
                  fmt::format("{}: ranks find different data: {} tokens here, {} elsewhere, or "
                              "other ones; it must stay as it is while ranks start, and be the "
                              "same on every node",
                              plan_.job.data.path, own.tokens, static_cast<int64_t>(all[i])));
    }
  }
}

void Trainer::note(const std::string& text) const {
  if (rank_.value == 0 && options_.note) options_.note(text);
}

void Trainer::note_other_data(const TokenSource::Identity& of_checkpoint) {
  const TokenSource::Identity own = data_.identity();
  if (own == of_checkpoint) return;
  note(
      fmt::format("{} has changed since the checkpoint was made ({} tokens then, {} now): samples "
                  "are others than in a run that was not interrupted",
                  plan_.job.data.path, of_checkpoint.tokens, own.tokens));
}

void Trainer::load_checkpoint(const std::string& directory) {
  const TrainingState state = read_training_state(directory, plan_.job.model);
  step_ = state.step;
  if (state.data) note_other_data(*state.data);
  const ModelFiles weights(directory, plan_.job.model);
  const OptimizerFiles optimizer(directory);
  for (auto& stage : stages_) {
    for (const auto& spec : stage->module.parameters().specs) {
      std::vector<float> values(spec.local_count());
      weights.read(spec, values.data());
      device_.copy_from_host(stage->module.weights() + spec.offset, values.data(), values.size());
      optimizer.read("momentum", spec, values.data());
      device_.copy_from_host(stage->optimizer.momentum() + spec.offset, values.data(),
                             values.size());
      optimizer.read("variance", spec, values.data());
      device_.copy_from_host(stage->optimizer.variance() + spec.offset, values.data(),
                             values.size());
    }
  }
}

// Replica d trains on the samples [d*m*b, (d+1)*m*b) of the step's global batch, or with shares on
// those behind what the replicas before it take, micro-batch by micro-batch. A stream numbers those
// of odd steps from m on (stream.h).
void Trainer::load_tokens(int step) {
  const Layout& layout = plan_.layout;
  const auto sequence = static_cast<size_t>(plan_.job.model.sequence);
  const int first = kind_ == StepKind::asynchronous ? step % 2 * layout.micro_batches : 0;
  const int before = layout.micro_batches_before(at_.data);
  for (int m = 0; m < layout.micro_batches_of(at_.data); ++m) {
    MicroBatchTokens& tokens = tokens_[first + m];
    tokens.inputs.resize(layout.micro_batch * sequence);
    tokens.targets.resize(layout.micro_batch * sequence);
    for (int b = 0; b < layout.micro_batch; ++b) {
      const int sample = (before + m) * layout.micro_batch + b;
      const uint64_t number =
          static_cast<uint64_t>(step) * plan_.job.training.global_batch + sample;
      data_.sample(number, tokens.inputs.data() + b * sequence,
                   tokens.targets.data() + b * sequence);
    }
  }
}

std::vector<Op> Trainer::ops_of_step(bool drain) const {
  const auto& row = plan_.schedule_of(at_.data).ranks[at_.pipeline];
  if (kind_ != StepKind::asynchronous) return row;
  return step_of_stream(row, plan_.layout.micro_batches, step_, filled_, drain);
}

bool Trainer::must_drain() const {
  const int next = step_ + 1;
  const int every = plan_.job.checkpoint.every;
  return stopping_ || next >= plan_.job.training.steps || (every > 0 && next % every == 0);
}

StepReport Trainer::step(bool stop) {
  StepReport report;
  report.step = step_;
  status_.step = step_;
  const double begin = Trace::now();
  const bool drain = kind_ != StepKind::asynchronous || must_drain();
  if (!filled_) load_tokens(step_);
  if (!drain) load_tokens(step_ + 1);
  for (auto& stage : stages_) {
    stage->sum->reset();
    stage->gradients = nullptr;
  }
  trace_.begin_step(step_);
  interpreter_->run(ops_of_step(drain), tokens_);
  filled_ = !drain;
  report.busy_seconds = trace_.busy();
  report.window_seconds = trace_.window();
  if (kind_ == StepKind::synchronous) reduce_gradients();
  agree(report, stop);
  require_finite(step_, "the loss", report.loss);
  require_finite(step_, "the norm of the gradients", report.grad_norm.value_or(0));
  if (kind_ == StepKind::synchronous) update_at_end(report);
  report.seconds = Trace::now() - begin;
  trace_.add_peak(device_.peak_bytes());
  trace_.end_step();
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
  ++step_;
  return report;
}

void Trainer::reduce_gradients() {
  status_.doing = static_cast<int32_t>(StatusPage::Doing::reducing);
  const double begin = Trace::now();
  // Last stage first, as its gradients are complete first.
  for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage)
    (*stage)->gradients = (*stage)->sum->finish();
  sum_tied();
  trace_.add(Trace::Kind::reduce, "reduce gradients", begin, Trace::now());
}

void Trainer::sum_tied() {
  if (!plan_.job.model.tied_embeddings || options_.mutations.skip_tied_embedding_sum) return;
  std::optional<StageGradients> first;
  std::optional<StageGradients> last;
  for (auto& stage : stages_) {
    const StageGradients own{&stage->module.parameters(), stage->gradients};
    if (stage->module.stage().embedding) first = own;
    if (stage->module.stage().head) last = own;
  }
  const auto& places = plan_.schedule.stages;
  const int other = first ? places.back().rank : places.front().rank;
  sum_tied_embeddings(device_, transport_, first, last,
                      rank_at(plan_.layout, {at_.tensor, at_.data, other}));
}

// Sum of squares of each parameter's gradient as far as this rank answers for it: of a sharded one
// its shard, of a replicated one everything on the first tensor rank and nothing on the others, of
// a tied copy nothing.
std::vector<double> Trainer::square_norms(const StageState& stage) const {
  std::vector<double> squares;
  for (const auto& spec : stage.module.parameters().specs) {
    const bool counted_elsewhere = spec.sharding == Sharding::replicated && at_.tensor != 0 &&
                                   !options_.mutations.count_replicated_norms_on_every_tensor_rank;
    squares.push_back(
        spec.tied_copy || counted_elsewhere
            ? 0
            : device_.squared_norm(stage.gradients + spec.offset, spec.local_count()));
  }
  return squares;
}

// Of all stages of this rank, in the order of the whole model's parameters.
std::vector<double> Trainer::local_square_norms() const {
  std::map<std::string, size_t> slot;
  for (size_t i = 0; i < parameter_order_.size(); ++i) slot[parameter_order_[i]] = i;
  std::vector<double> squares(parameter_order_.size());
  for (const auto& stage : stages_) {
    const auto& specs = stage->module.parameters().specs;
    const auto own = square_norms(*stage);
    for (size_t i = 0; i < specs.size(); ++i) squares[slot.at(specs[i].name)] += own[i];
  }
  return squares;
}

namespace {

// What the replica with the most micro-batches trains on in a step.
size_t most_samples(const Layout& layout) {
  int most = layout.micro_batches;
  for (const Share& share : layout.shares) most = std::max(most, share.micro_batches);
  return static_cast<size_t>(most) * static_cast<size_t>(layout.micro_batch);
}

}  // namespace

// The mean loss over the global batch on ranks that hold the head; samples are added in their
// global order.
double Trainer::local_loss() {
  const int first = kind_ == StepKind::asynchronous ? step_ % 2 * plan_.layout.micro_batches : 0;
  for (auto& stage : stages_) {
    if (!stage->module.stage().head) continue;
    std::vector<double> mine;
    for (int m = 0; m < plan_.layout.micro_batches_of(at_.data); ++m) {
      for (const double loss : stage->module.take_losses(first + m)) mine.push_back(loss);
    }
    mine.resize(most_samples(plan_.layout));
    double total = 0;
    for (const double loss : gather_doubles(*data_group_, mine)) total += loss;
    return total /
           (static_cast<double>(plan_.job.training.global_batch) * plan_.job.model.sequence);
  }
  return 0;
}

// Loss, gradient norm and the wish to stop become the same on every rank. A stream that is not
// drained cannot stop here: it stops one step later.
void Trainer::agree(StepReport& report, bool stop) {
  std::vector<double> mine;
  if (kind_ == StepKind::synchronous) mine = local_square_norms();
  const size_t parameters = mine.size();
  mine.push_back(local_loss());
  const auto all = gather_doubles(*model_group_, mine);
  const int last = plan_.schedule.stages.back().rank;
  report.loss = all[(last * plan_.layout.tensor + 1) * mine.size() - 1];
  if (kind_ == StepKind::synchronous) report.grad_norm = norm_of(all, parameters, mine.size());
  if (kind_ != StepKind::evaluation)
    report.learning_rate = learning_rate(plan_.job.training, step_);
  // Every replica's first rank knows what its replica was told; one small sum over the replicas
  // makes it common.
  float wish = stop ? 1 : 0;
  model_group_->all_reduce({&wish, 1}, ReduceOp::maximum);
  data_group_->all_reduce({&wish, 1}, ReduceOp::maximum);
  stopping_ = stopping_ || wish > 0;
  report.stop = stopping_ && !filled_;
}

void Trainer::update_at_end(const StepReport& report) {
  status_.doing = static_cast<int32_t>(StatusPage::Doing::optimizer);
  const double begin = Trace::now();
  for (auto& stage : stages_) {
    stage->optimizer.update(stage->module, stage->gradients, plan_.job.training,
                            {step_ + 1, *report.learning_rate, *report.grad_norm});
  }
  trace_.add(Trace::Kind::optimizer, "AdamW", begin, Trace::now());
}

// The norm of all gradients is not known before the whole pipeline has gone back, so a stage clips
// by its own.
void Trainer::update_in_stream(int chunk, int micro_batch) {
  status_.doing = static_cast<int32_t>(StatusPage::Doing::optimizer);
  StageState& stage = *stages_[chunk];
  const int m = plan_.layout.micro_batches;
  const double begin = Trace::now();
  stage.gradients = stage.sum->finish();
  sum_tied();
  double norm = 0;
  if (plan_.job.training.clip_grad > 0) {
    const auto mine = square_norms(stage);
    norm = norm_of(gather_doubles(*tensor_group_, mine), mine.size(), mine.size());
    require_finite(step_, "the norm of a stage's gradients", norm);
  }
  const Training& training = plan_.job.training;
  stage.optimizer.update(stage.module, stage.gradients, training,
                         {step_ * m + micro_batch % m + 1, learning_rate(training, step_), norm});
  stage.sum->reset();
  trace_.add(Trace::Kind::optimizer, "AdamW", begin, Trace::now());
}

std::optional<std::string> Trainer::save(const RunDirectory& run) {
  if (kind_ == StepKind::evaluation) return std::nullopt;
  TRIREME_CHECK(!filled_);
  status_.doing = static_cast<int32_t>(StatusPage::Doing::saving);
  std::vector<trireme::StageState> states;
  for (auto& stage : stages_) {
    states.push_back({&stage->module.parameters(), stage->module.weights(),
                      stage->optimizer.momentum(), stage->optimizer.variance()});
  }
  const auto saved =
      save_checkpoint(plan_, rank_, device_, transport_, states, {step_, data_.identity()}, run);
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
  if (!saved) return std::nullopt;
  if (!saved->note.empty()) note(saved->note);
  return saved->directory;
}

std::vector<Trainer::StageView> Trainer::stages() const {
  std::vector<StageView> views;
  for (const auto& stage : stages_) {
    views.push_back({&stage->module.parameters(), stage->module.weights(), stage->gradients});
  }
  return views;
}

}  // namespace trireme
