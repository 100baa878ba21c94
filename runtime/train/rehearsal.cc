#include "runtime/train/rehearsal.h"

#include <algorithm>
#include <set>

#include "runtime/comm/tree.h"
#include "runtime/model/parameters.h"
#include "runtime/train/trainer.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

constexpr size_t kBucketFloats = 1 << 20;  // as in training

int element_bytes(const Plan& plan) {
  return plan.job.training.dtype == Dtype::bf16 ? 2 : 4;
}

// One activation between stages, in floats of 4 bytes whatever its own type is.
size_t boundary_floats(const Plan& plan) {
  const double tokens = static_cast<double>(plan.layout.micro_batch) * plan.job.model.sequence;
  const int share = plan.layout.sequence_parallel ? plan.layout.tensor : 1;
  const double bytes = tokens * plan.job.model.hidden * element_bytes(plan) / share;
  return std::max<size_t>(static_cast<size_t>(bytes / sizeof(float)), 2);
}

// Bytes of a parameter's weight and optimizer state: fp32 weight and two moments, or a bf16 weight
// with a master copy and two moments in fp32 (Micikevicius et al. 2018; Kingma & Ba 2015).
double resident_bytes(const Plan& plan) {
  const double optimizer = plan.job.training.dtype == Dtype::bf16 ? 12 : 8;
  const int sharing = plan.layout.optimizer_sharding > 0 ? plan.layout.data : 1;
  return element_bytes(plan) + optimizer / sharing;
}

}  // namespace

std::vector<Rank> rehearsal_peers(const Plan& plan, Rank rank) {
  std::set<Rank> peers;
  const auto pipeline = pipeline_group(plan.layout, rank);
  const int self = coordinates_of(plan.layout, rank).pipeline;
  const auto& places = plan.schedule.stages;
  for (size_t s = 1; s < places.size(); ++s) {
    if (places[s].rank == self) peers.insert(pipeline[places[s - 1].rank]);
    if (places[s - 1].rank == self) peers.insert(pipeline[places[s].rank]);
  }
  for (const Rank replica : data_group(plan.layout, rank)) peers.insert(replica);
  for (const Rank neighbour : tree_neighbours(rank, plan.layout.ranks())) peers.insert(neighbour);
  peers.erase(rank);
  return {peers.begin(), peers.end()};
}

struct RehearsalTrainer::StageState {
  StageParameters parameters;
  std::unique_ptr<EmulatedStage> passes;
  std::unique_ptr<GradientSum> sum;
};

RehearsalTrainer::RehearsalTrainer(const Plan& plan, Rank rank, const Rehearsal& rehearsal,
                                   Transport& transport, StatusPage& status,
                                   const std::string& trace_path)
    : plan_(plan),
      rank_(rank),
      at_(coordinates_of(plan.layout, rank)),
      rehearsal_(rehearsal),
      transport_(transport, rehearsal.wire_scale),
      status_(status),
      trace_(trace_path, rank.value, rank_name(plan, rank)),
      evaluates_(step_kind(plan.schedule) == StepKind::evaluation),
      tokens_(plan.layout.micro_batches_of(at_.data)) {
  TRIREME_CHECK(times().stages.size() == plan.stages.size());
  size_t weights = 0;
  for (int chunk = 0; chunk < plan.layout.chunks; ++chunk) {
    const auto& places = plan.schedule.stages;
    const auto found = std::find(places.begin(), places.end(), StagePlace{at_.pipeline, chunk});
    TRIREME_CHECK(found != places.end());
    build_stage(static_cast<int>(found - places.begin()));
    weights += stages_.back()->parameters.weight_count;
  }
  const double resident = resident_bytes(plan) * static_cast<double>(weights);
  resident_ = device_.allocate(static_cast<size_t>(resident / sizeof(float)));
  Interpreter::Setup setup{&plan,
                           at_.pipeline,
                           plan.layout.micro_batches_of(at_.data),
                           pipeline_group(plan.layout, rank),
                           {},
                           {},
                           evaluates_,
                           {}};
  for (const auto& stage : stages_) {
    setup.stages.push_back(stage->passes.get());
    setup.gradients.push_back(stage->sum.get());
  }
  interpreter_ =
      std::make_unique<Interpreter>(device_, transport_, trace_, status_, std::move(setup));
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
}

RehearsalTrainer::~RehearsalTrainer() = default;

void RehearsalTrainer::build_stage(int index) {
  const int last = static_cast<int>(plan_.stages.size()) - 1;
  const auto link_to = [&](int neighbour) -> EmulatedLink* {
    if (neighbour < 0 || neighbour > last) return nullptr;
    const int rank = plan_.stages[neighbour].pipeline_rank;
    if (rank == at_.pipeline) return nullptr;
    const double scale = rehearsal_.time_scale;
    return &links_
                .try_emplace(rank, EmulatedLink{scale * times().transfer_seconds,
                                                scale * times().hop_seconds})
                .first->second;
  };
  auto state = std::make_unique<StageState>();
  state->parameters =
      stage_parameters(plan_.job.model, plan_.stages[index], plan_.layout.tensor, at_.tensor);
  EmulatedStage::Setup setup;
  setup.figures = times().stages[index];
  setup.time_scale = rehearsal_.time_scale;
  setup.boundary_floats = boundary_floats(plan_);
  setup.units = state->parameters.units;
  setup.first = index == 0;
  setup.last = index == last;
  setup.to_next = link_to(index + 1);
  setup.to_previous = link_to(index - 1);
  state->passes = std::make_unique<EmulatedStage>(device_, setup);
  state->sum = std::make_unique<GradientSum>(
      device_, transport_, state->parameters,
      GradientSum::Setup{plan_.job.training.reduction_on(true),
                         plan_.layout.micro_batches_of(at_.data), at_.data,
                         data_group(plan_.layout, rank_), index, kBucketFloats});
  stages_.push_back(std::move(state));
}

RehearsedStep RehearsalTrainer::step(bool stop) {
  RehearsedStep report;
  report.step = step_;
  status_.step = step_;
  const double begin = Trace::now();
  for (auto& stage : stages_) stage->sum->reset();
  trace_.begin_step(step_);
  device_.stream().start();
  interpreter_->run(plan_.schedule_of(at_.data).ranks[at_.pipeline], tokens_);
  const EmulatedStream& stream = device_.stream();
  report.busy_seconds = stream.busy() / rehearsal_.time_scale;
  report.window_seconds = stream.elapsed() / rehearsal_.time_scale;
  if (!evaluates_) reduce_gradients();
  const double ended = agree(report, stop);
  report.slipped_seconds += finish_step(ended) / rehearsal_.time_scale;
  report.seconds = (Trace::now() - begin) / rehearsal_.time_scale;
  trace_.end_step();
  ++step_;
  return report;
}

void RehearsalTrainer::reduce_gradients() {
  status_.doing = static_cast<int32_t>(StatusPage::Doing::reducing);
  const double begin = Trace::now();
  for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
    (*stage)->sum->finish();
  }
  trace_.add(Trace::Kind::reduce, "reduce gradients", begin, Trace::now());
}

// Returns when the last rank's last op ends.
double RehearsalTrainer::agree(RehearsedStep& report, bool stop) {
  std::vector<double> values(3 + plan_.layout.pipeline);
  values[0] = stop ? 1 : 0;
  values[1] = device_.stream().slipped() / rehearsal_.time_scale;
  values[2] = device_.stream().end();
  values[3 + at_.pipeline] = static_cast<double>(device_.peak_bytes());
  tree_maximum(transport_, values);
  report.stop = values[0] > 0;
  report.slipped_seconds = values[1];
  report.peak_bytes.assign(values.begin() + 3, values.end());
  return values[2];
}

// What the plan expects after the last op begins when that has ended: summing gradients and
// agreeing were work of the host meanwhile. Returns by how much it was too late.
double RehearsalTrainer::finish_step(double ended) {
  status_.doing = static_cast<int32_t>(StatusPage::Doing::optimizer);
  const double begin = Trace::now();
  EmulatedStream& stream = device_.stream();
  const double before = stream.slipped();
  stream.await_input(ended);
  stream.run(rehearsal_.time_scale * plan_.prediction.seconds_after_ops());
  stream.wait();
  trace_.add(Trace::Kind::optimizer, "rest of the step", begin, Trace::now());
  status_.doing = static_cast<int32_t>(StatusPage::Doing::idle);
  return stream.slipped() - before;
}

}  // namespace trireme
