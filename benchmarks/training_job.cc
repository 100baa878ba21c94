#include "benchmarks/training_job.h"

#include "planner/schedules/schedules.h"

namespace trireme::bench {

Job training_job(const Shape& shape) {
  Job job;
  job.name = shape.name;
  job.model.family = Family::gpt2;
  job.model.layers = shape.layers;
  job.model.hidden = shape.hidden;
  job.model.heads = job.model.kv_heads = shape.heads;
  job.model.head_dim = shape.hidden / shape.heads;
  job.model.ffn_hidden = 4 * shape.hidden;
  job.model.vocab = shape.vocab;
  job.model.sequence = job.model.positions = shape.sequence;
  job.model.tied_embeddings = true;
  job.training.global_batch = shape.batch;
  job.training.steps = 1'000'000;
  return job;
}

Plan training_plan(const Job& job, int tensor, int pipeline, int data, int micro_batch) {
  Plan plan;
  plan.cluster = "this machine";
  plan.device = "cpu";
  plan.job = job;
  plan.layout.tensor = tensor;
  plan.layout.pipeline = pipeline;
  plan.layout.data = data;
  plan.layout.micro_batch = micro_batch;
  plan.layout.micro_batches = job.training.global_batch / (data * micro_batch);
  ScheduleRequest request;
  request.name = plan.layout.schedule;
  request.pipeline = pipeline;
  request.micro_batches = plan.layout.micro_batches;
  plan.schedule = make_schedule(request);
  for (int s = 0; s < pipeline; ++s) {
    const Range layers = split_evenly(job.model.layers, pipeline, s);
    plan.stages.push_back({s, 0, layers.begin, layers.size(), s == 0, s == pipeline - 1});
  }
  for (int r = 0; r < plan.layout.ranks(); ++r) plan.placement.push_back({"localhost", r});
  return plan;
}

double step_flops(const Job& job, bool causal) {
  const Model& m = job.model;
  const double tokens = static_cast<double>(job.training.global_batch) * m.sequence;
  const double per_layer = 4.0 * m.hidden * m.hidden + 2.0 * m.hidden * m.ffn_hidden;
  const double multiplied = m.layers * per_layer + static_cast<double>(m.vocab) * m.hidden;
  const double attention = 12.0 * m.layers * m.sequence * m.hidden * (causal ? 0.5 : 1.0);
  return tokens * (6.0 * multiplied + attention);
}

}  // namespace trireme::bench
