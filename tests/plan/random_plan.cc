#include "tests/plan/random_plan.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <fmt/format.h>

namespace trireme {
namespace {

int up_to(std::mt19937_64& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

bool coin(std::mt19937_64& random) {
  return up_to(random, 0, 1) == 1;
}

// Any finite double, by its bits: huge, tiny, denormal, negative.
double any_double(std::mt19937_64& random) {
  while (true) {
    const auto value = std::bit_cast<double>(random());
    if (std::isfinite(value)) return value;
  }
}

double between(std::mt19937_64& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}

std::string any_text(std::mt19937_64& random) {
  static const char* pieces[] = {"a",    "B",    "7", " ",  "\"", "\\", "\n", "\t", "\r",
                                 "\x01", "\x7f", "ü", "漢", "#",  "'",  "]",  "="};
  std::string text;
  for (int n = up_to(random, 0, 12); n > 0; --n)
    text += pieces[up_to(random, 0, std::size(pieces) - 1)];
  return text;
}

std::string any_name(std::mt19937_64& random) {
  std::string name = any_text(random);
  std::erase_if(name, [](unsigned char c) { return c < ' ' || c == 0x7f; });
  return name;
}

Model random_model(std::mt19937_64& random) {
  Model model;
  model.family = coin(random) ? Family::gpt2 : Family::llama;
  const bool llama = model.family == Family::llama;
  model.layers = up_to(random, 1, 40);
  model.kv_heads = up_to(random, 1, 4);
  model.heads = model.kv_heads * (llama ? up_to(random, 1, 4) : 1);
  model.head_dim = 2 * up_to(random, 1, 16);
  model.hidden = model.heads * model.head_dim;
  model.ffn_hidden = up_to(random, 1, 1000);
  model.vocab = up_to(random, 256, 100000);
  model.sequence = up_to(random, 1, 1000);
  model.positions = model.sequence + up_to(random, 0, 10);
  model.tied_embeddings = coin(random);
  model.norm_epsilon = between(random, 1e-12, 1);
  if (llama) model.rope_theta = between(random, 1, 1e6);
  model.init_std = between(random, 0, 1);
  return model;
}

Training random_training(std::mt19937_64& random, int global_batch) {
  Training training;
  training.global_batch = global_batch;
  training.steps = up_to(random, 1, 1 << 30);
  training.seed = random() >> 1;
  training.dtype = coin(random) ? Dtype::fp32 : Dtype::bf16;
  training.learning_rate = between(random, 0, 1);
  training.min_learning_rate = training.learning_rate * between(random, 0, 1);
  training.warmup_steps = up_to(random, 0, training.steps);
  training.weight_decay = between(random, 0, 1);
  training.beta1 = between(random, 0, 1);
  training.beta2 = between(random, 0, 1);
  training.epsilon = between(random, 1e-20, 1);
  training.clip_grad = between(random, 0, 10);
  training.reduction = coin(random) ? Reduction::ordered : Reduction::fast;
  return training;
}

ExecutionPins random_execution(std::mt19937_64& random) {
  ExecutionPins execution;
  execution.attention = coin(random) ? Attention::fused : Attention::unfused;
  execution.dropout = coin(random);
  execution.fused_softmax = coin(random);
  execution.fused_elementwise = coin(random);
  execution.gradient_dtype = coin(random) ? Dtype::fp32 : Dtype::bf16;
  execution.overlap_gradients = coin(random);
  execution.overlap_pipeline = coin(random);
  execution.split_messages = coin(random);
  execution.overlap_tensor = static_cast<TensorOverlap>(up_to(random, 0, 2));
  execution.sharding_ranks = up_to(random, 0, 1000);
  execution.sharding_buckets = coin(random);
  execution.issue_ahead = coin(random);
  execution.issue_us = between(random, 0, 100);
  if (coin(random)) execution.attention = std::nullopt;
  if (coin(random)) execution.dropout = std::nullopt;
  if (coin(random)) execution.overlap_tensor = std::nullopt;
  if (coin(random)) execution.sharding_ranks = std::nullopt;
  if (coin(random)) execution.issue_us = std::nullopt;
  return execution;
}

Pins random_pins(std::mt19937_64& random) {
  Pins pins;
  const auto degree = [&](int high) {
    return coin(random) ? std::optional<int>(up_to(random, 1, high)) : std::nullopt;
  };
  pins.tensor = degree(1 << 20);
  pins.pipeline = degree(100);
  pins.data = degree(100);
  pins.chunks = degree(100);
  pins.micro_batch = degree(100);
  if (coin(random)) pins.optimizer_sharding = up_to(random, 0, 1);
  if (coin(random)) pins.schedule = schedule_names()[static_cast<size_t>(up_to(random, 0, 14))];
  if (coin(random)) pins.sequence_parallel = coin(random);
  if (coin(random)) pins.recompute_ranks = up_to(random, 0, 8);
  if (coin(random)) pins.recompute = static_cast<Recompute>(up_to(random, 0, 2));
  return pins;
}

Layout random_layout(std::mt19937_64& random) {
  Layout layout;
  layout.tensor = up_to(random, 1, 4);
  layout.pipeline = up_to(random, 1, 4);
  layout.data = up_to(random, 1, 4);
  layout.chunks = up_to(random, 1, 3);
  layout.schedule = any_text(random);
  layout.micro_batch = up_to(random, 1, 4);
  layout.micro_batches = up_to(random, 1, 6);
  layout.sequence_parallel = coin(random);
  layout.recompute = static_cast<Recompute>(up_to(random, 0, 2));
  layout.recompute_ranks = up_to(random, 0, layout.pipeline - 1);
  layout.optimizer_sharding = up_to(random, 0, 1);
  if (layout.data > 1 && coin(random)) {
    const int first = up_to(random, 1, layout.data - 1);
    layout.shares = {{first, layout.micro_batches}, {layout.data - first, up_to(random, 1, 6)}};
  }
  return layout;
}

// Any order will do: whether a schedule can run is not the plan file's affair.
std::vector<Op> random_row(std::mt19937_64& random, const Plan& plan, int micro_batches, int rank) {
  std::vector<Op> row;
  for (int s = 0; s < plan.layout.stages(); ++s) {
    if (plan.stages[static_cast<size_t>(s)].pipeline_rank != rank) continue;
    for (int m = 0; m < micro_batches; ++m) {
      for (const auto kind :
           {OpKind::forward, OpKind::backward, OpKind::backward_input, OpKind::backward_weight}) {
        if (coin(random)) row.push_back({kind, false, s, m});
      }
    }
  }
  std::shuffle(row.begin(), row.end(), random);
  for (size_t i = 0; i + 1 < row.size(); i += 2) row[i].overlaps_next = coin(random);
  return row;
}

void fill_schedule(std::mt19937_64& random, const Plan& plan, int micro_batches,
                   Schedule& schedule) {
  schedule.name = any_text(random);
  schedule.micro_batches = micro_batches;
  for (int r = 0; r < plan.layout.pipeline; ++r) {
    schedule.ranks.push_back(random_row(random, plan, micro_batches, r));
  }
}

// PipeDream's order, the only one that an asynchronous schedule may have.
void make_asynchronous(Plan& plan) {
  const int pipeline = plan.layout.pipeline;
  const int micro_batches = plan.schedule.micro_batches;
  plan.schedule.asynchronous = true;
  for (int r = 0; r < pipeline; ++r) {
    auto& row = plan.schedule.ranks[static_cast<size_t>(r)];
    row.clear();
    const int depth = std::min(pipeline - r, micro_batches);
    for (int i = 0; i < micro_batches + depth; ++i) {
      if (i >= depth) row.push_back({OpKind::backward, false, r, i - depth});
      if (i < micro_batches) row.push_back({OpKind::forward, false, r, i});
    }
  }
}

void cut_into_stages(std::mt19937_64& random, Plan& plan) {
  const int count = plan.layout.stages();
  int next_layer = 0;
  const auto places = loop_placement(plan.layout.pipeline, plan.layout.chunks);
  for (int s = 0; s < count; ++s) {
    const int left = plan.job.model.layers - next_layer;
    const int layers = s + 1 == count ? left : up_to(random, 0, left);
    const auto place = places[static_cast<size_t>(s)];
    plan.stages.push_back({place.rank, place.chunk, next_layer, layers, s == 0, s + 1 == count});
    next_layer += layers;
  }
  plan.schedule.stages = places;
}

// Seconds or bytes.
double any_amount(std::mt19937_64& random) {
  return std::min(std::abs(any_double(random)), 1e30);
}

PipelineTimes random_times(std::mt19937_64& random, int stages) {
  PipelineTimes times;
  if (coin(random)) {
    for (int s = 0; s < stages; ++s) {
      times.stages.push_back(
          {any_amount(random), any_amount(random), any_amount(random), any_amount(random)});
    }
  }
  times.transfer_seconds = any_amount(random);
  times.hop_seconds = any_amount(random);
  return times;
}

Prediction random_prediction(std::mt19937_64& random, int pipeline, int stages) {
  Prediction prediction;
  for (auto* value : {&prediction.step_seconds, &prediction.tokens_per_second,
                      &prediction.model_tflops_per_device, &prediction.hardware_tflops_per_device,
                      &prediction.mfu, &prediction.bubble_fraction}) {
    *value = any_amount(random);
  }
  if (coin(random)) {
    for (int r = 0; r < pipeline; ++r)
      prediction.memory_bytes_per_pipeline_rank.push_back(any_double(random));
  }
  if (coin(random)) {
    for (int r = 0; r < pipeline; ++r)
      prediction.peak_seconds_per_pipeline_rank.push_back(any_double(random));
  }
  for (int n = up_to(random, 0, 3); n > 0; --n)
    prediction.traffic.push_back({any_text(random), any_double(random), any_double(random)});
  prediction.links.push_back(
      {any_text(random), any_text(random), any_double(random), any_double(random)});
  for (int n = up_to(random, 0, 4); n > 0; --n)
    prediction.breakdown.emplace_back(any_text(random), any_double(random));
  static_cast<PipelineTimes&>(prediction) = random_times(random, stages);
  return prediction;
}

}  // namespace

Plan random_plan(std::mt19937_64& random) {
  Plan plan;
  plan.cluster = any_text(random);
  plan.device = any_text(random);
  plan.layout = random_layout(random);
  plan.job.name = any_name(random);
  plan.job.model = random_model(random);
  plan.job.weights = coin(random) ? "" : "/w/" + any_text(random) + "x";
  const std::vector<Share>& shares = plan.layout.shares;
  plan.job.training = random_training(
      random, plan.layout.micro_batch * plan.layout.micro_batches_before(plan.layout.data));
  if (!shares.empty()) plan.job.training.reduction = Reduction::fast;
  plan.job.execution = random_execution(random);
  plan.job.data = {"/d/" + any_text(random) + "x", static_cast<DataFormat>(up_to(random, 0, 3)),
                   static_cast<SampleOrder>(up_to(random, 0, 1))};
  plan.job.checkpoint = {up_to(random, 0, 1000), up_to(random, 0, 10)};
  plan.job.pins = random_pins(random);
  cut_into_stages(random, plan);
  fill_schedule(random, plan, plan.layout.micro_batches, plan.schedule);
  for (size_t i = 1; i < shares.size(); ++i) {
    Schedule other;
    other.stages = plan.schedule.stages;
    fill_schedule(random, plan, shares[i].micro_batches, other);
    plan.other_schedules.push_back(other);
  }
  if (shares.empty() && plan.layout.chunks == 1 && !plan.job.model.tied_embeddings && coin(random))
    make_asynchronous(plan);
  for (int r = 0; r < plan.layout.ranks(); ++r)
    plan.placement.push_back({fmt::format("n{}", r / 4), r % 4});
  plan.prediction = random_prediction(random, plan.layout.pipeline, plan.layout.stages());
  if (coin(random)) {
    for (size_t i = 1; i < shares.size(); ++i) {
      plan.prediction.other_shares.push_back(random_times(random, plan.layout.stages()));
    }
  }
  return plan;
}

}  // namespace trireme
