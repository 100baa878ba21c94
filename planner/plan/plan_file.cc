#include <filesystem>

#include <fmt/format.h>

#include "planner/plan/limits.h"
#include "planner/plan/plan.h"
#include "planner/plan/plan_check.h"
#include "topology/base/check.h"
#include "topology/base/toml_writer.h"

namespace trireme {
namespace {

constexpr std::string_view kFormat = "trireme-plan-1";
constexpr double kLargest = 1.7976931348623157e308;
constexpr double kLargestAmount = 1e30;  // sums of any number of which are finite

std::string share_list(const Layout& layout) {
  if (layout.shares.empty()) return "";
  std::string text = "shares = [\n";
  for (const Share& share : layout.shares) {
    text += fmt::format("  {{replicas = {}, micro_batches = {}}},\n", share.replicas,
                        share.micro_batches);
  }
  return text + "]\n";
}

std::string layout_table(const Layout& layout) {
  const std::string ranks = layout.recompute_ranks == 0
                                ? ""
                                : fmt::format("recompute_ranks = {}\n", layout.recompute_ranks);
  return fmt::format(
             "[layout]\ntensor = {}\npipeline = {}\ndata = {}\nchunks = {}\nschedule = "
             "{}\nmicro_batch = "
             "{}\n"
             "micro_batches = {}\nsequence_parallel = {}\nrecompute = \"{}\"\noptimizer_sharding = "
             "{}\n",
             layout.tensor, layout.pipeline, layout.data, layout.chunks,
             toml_string(layout.schedule), layout.micro_batch, layout.micro_batches,
             layout.sequence_parallel, name_of(layout.recompute), layout.optimizer_sharding) +
         ranks + share_list(layout);
}

std::string pipeline_times(const PipelineTimes& times) {
  std::string text = "stages = [\n";
  for (const StagePrediction& stage : times.stages) {
    text += fmt::format(
        "  {{forward_seconds = {}, input_seconds = {}, weight_seconds = {}, activation_bytes = "
        "{}}},\n",
        toml_number(stage.forward_seconds), toml_number(stage.input_seconds),
        toml_number(stage.weight_seconds), toml_number(stage.activation_bytes));
  }
  return text + fmt::format("]\ntransfer_seconds = {}\nhop_seconds = {}\n",
                            toml_number(times.transfer_seconds), toml_number(times.hop_seconds));
}

std::string prediction_table(const Prediction& prediction) {
  auto text = std::string("[prediction]\n");
  const auto line = [&text](const char* key, double value) {
    text += fmt::format("{} = {}\n", key, toml_number(value));
  };
  line("step_seconds", prediction.step_seconds);
  line("tokens_per_second", prediction.tokens_per_second);
  line("model_tflops_per_device", prediction.model_tflops_per_device);
  line("hardware_tflops_per_device", prediction.hardware_tflops_per_device);
  line("mfu", prediction.mfu);
  line("bubble_fraction", prediction.bubble_fraction);
  text += "memory_bytes_per_pipeline_rank = [";
  for (const double bytes : prediction.memory_bytes_per_pipeline_rank)
    text += toml_number(bytes) + ", ";
  text += "]\npeak_seconds_per_pipeline_rank = [";
  for (const double seconds : prediction.peak_seconds_per_pipeline_rank)
    text += toml_number(seconds) + ", ";
  text += "]\ntraffic = [\n";
  for (const AxisTraffic& traffic : prediction.traffic) {
    text += fmt::format("  {{axis = {}, bytes = {}, seconds = {}}},\n", toml_string(traffic.axis),
                        toml_number(traffic.bytes), toml_number(traffic.seconds));
  }
  text += "]\nlinks = [\n";
  for (const LinkTraffic& link : prediction.links) {
    text += fmt::format("  {{link = {}, where = {}, bytes = {}, seconds = {}}},\n",
                        toml_string(link.link), toml_string(link.where), toml_number(link.bytes),
                        toml_number(link.seconds));
  }
  text += "]\nbreakdown = [\n";
  for (const auto& [cause, seconds] : prediction.breakdown) {
    text +=
        fmt::format("  {{cause = {}, seconds = {}}},\n", toml_string(cause), toml_number(seconds));
  }
  text += "]\n" + pipeline_times(prediction);
  for (const PipelineTimes& share : prediction.other_shares) {
    text += "\n[[prediction.other_shares]]\n" + pipeline_times(share);
  }
  return text;
}

std::string stage_list(const Plan& plan) {
  std::string text = "stages = [\n";
  for (const auto& stage : plan.stages) {
    text += fmt::format(
        "  {{pipeline_rank = {}, chunk = {}, first_layer = {}, layers = {}, embedding = {}, head = "
        "{}}},\n",
        stage.pipeline_rank, stage.chunk, stage.first_layer, stage.layers, stage.embedding,
        stage.head);
  }
  return text + "]\n";
}

std::string placement_list(const Plan& plan) {
  constexpr int kPerLine = 8;
  std::string text = "placement = [";
  int rank = 0;
  for (const auto& place : plan.placement) {
    text += rank++ % kPerLine == 0 ? "\n  " : " ";
    text += toml_string(fmt::format("{}:{}", place.node, place.device)) + ",";
  }
  return text + "\n]\n";
}

std::string schedule_table(const Plan& plan, const char* header, const Schedule& schedule) {
  // The file says where a stage lives only once, in `stages`.
  TRIREME_CHECK(schedule.stages.size() == plan.stages.size());
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const StagePlace place{plan.stages[s].pipeline_rank, plan.stages[s].chunk};
    TRIREME_CHECK(schedule.stages[s] == place);
  }
  auto text = fmt::format("{}\nname = {}\nmicro_batches = {}\n", header, toml_string(schedule.name),
                          schedule.micro_batches);
  if (schedule.asynchronous) text += "asynchronous = true\n";
  text += "rows = [\n";
  for (const auto& row : schedule.ranks) text += fmt::format("  \"{}\",\n", row_to_csv(row));
  return text + "]\n";
}

int read_int(TomlTable& table, std::string_view key, int64_t low, int64_t high) {
  return static_cast<int>(table.integer(key, low, high));
}

double read_finite(TomlTable& table, std::string_view key) {
  return table.number(key, -kLargest, kLargest);
}

// Seconds or bytes.
double read_amount(TomlTable& table, std::string_view key) {
  return table.number(key, 0, kLargestAmount);
}

Layout read_layout(TomlTable table) {
  Layout layout;
  layout.tensor = read_int(table, "tensor", 1, limits::kDegree);
  layout.pipeline = read_int(table, "pipeline", 1, limits::kDegree);
  layout.data = read_int(table, "data", 1, limits::kDegree);
  layout.chunks = read_int(table, "chunks", 1, limits::kChunks);
  layout.schedule = table.string("schedule");
  layout.micro_batch = read_int(table, "micro_batch", 1, limits::kMicroBatch);
  layout.micro_batches = read_int(table, "micro_batches", 1, limits::kBatch);
  layout.sequence_parallel = table.boolean("sequence_parallel");
  layout.recompute_ranks =
      static_cast<int>(table.integer_or("recompute_ranks", 0, 0, limits::kDegree));
  layout.recompute = *recompute_named(table.choice("recompute", recompute_names()));
  layout.optimizer_sharding = read_int(table, "optimizer_sharding", 0, 1);
  for (auto& share : table.tables("shares")) {
    layout.shares.push_back({read_int(share, "replicas", 1, limits::kDegree),
                             read_int(share, "micro_batches", 1, limits::kBatch)});
    share.finish();
  }
  table.finish();
  return layout;
}

PipelineTimes read_pipeline_times(TomlTable& table) {
  PipelineTimes times;
  for (auto& stage : table.tables("stages")) {
    times.stages.push_back(
        {read_amount(stage, "forward_seconds"), read_amount(stage, "input_seconds"),
         read_amount(stage, "weight_seconds"), read_amount(stage, "activation_bytes")});
    stage.finish();
  }
  times.transfer_seconds = read_amount(table, "transfer_seconds");
  times.hop_seconds = read_amount(table, "hop_seconds");
  return times;
}

Prediction read_prediction(TomlTable table) {
  Prediction prediction;
  prediction.step_seconds = read_amount(table, "step_seconds");
  prediction.tokens_per_second = read_amount(table, "tokens_per_second");
  prediction.model_tflops_per_device = read_finite(table, "model_tflops_per_device");
  prediction.hardware_tflops_per_device = read_finite(table, "hardware_tflops_per_device");
  prediction.mfu = read_finite(table, "mfu");
  prediction.bubble_fraction = read_finite(table, "bubble_fraction");
  prediction.memory_bytes_per_pipeline_rank = table.numbers("memory_bytes_per_pipeline_rank");
  prediction.peak_seconds_per_pipeline_rank = table.numbers("peak_seconds_per_pipeline_rank");
  for (auto& part : table.tables("traffic")) {
    auto axis = part.string("axis");
    prediction.traffic.push_back(
        {std::move(axis), read_finite(part, "bytes"), read_finite(part, "seconds")});
    part.finish();
  }
  for (auto& part : table.tables("links")) {
    auto link = part.string("link"), where = part.string("where");
    prediction.links.push_back({std::move(link), std::move(where), read_finite(part, "bytes"),
                                read_finite(part, "seconds")});
    part.finish();
  }
  for (auto& part : table.tables("breakdown")) {
    auto cause = part.string("cause");
    prediction.breakdown.emplace_back(std::move(cause), read_finite(part, "seconds"));
    part.finish();
  }
  static_cast<PipelineTimes&>(prediction) = read_pipeline_times(table);
  for (auto& share : table.tables("other_shares")) {
    prediction.other_shares.push_back(read_pipeline_times(share));
    share.finish();
  }
  table.finish();
  return prediction;
}

std::vector<Stage> read_stages(TomlTable& root) {
  std::vector<Stage> stages;
  for (auto& table : root.tables("stages")) {
    Stage stage;
    stage.pipeline_rank = read_int(table, "pipeline_rank", 0, limits::kDegree);
    stage.chunk = read_int(table, "chunk", 0, limits::kChunks);
    stage.first_layer = read_int(table, "first_layer", 0, limits::kLayers);
    stage.layers = read_int(table, "layers", 0, limits::kLayers);
    stage.embedding = table.boolean("embedding");
    stage.head = table.boolean("head");
    table.finish();
    stages.push_back(stage);
  }
  return stages;
}

std::vector<PlacedRank> read_placement(TomlTable& root) {
  std::vector<PlacedRank> placement;
  for (const auto& text : root.strings("placement")) {
    const auto colon = text.rfind(':');
    const auto digits = colon == std::string::npos ? "" : text.substr(colon + 1);
    constexpr size_t kMostDigits = 6;
    if (colon == 0 || digits.empty() || digits.size() > kMostDigits ||
        digits.find_first_not_of("0123456789") != std::string::npos) {
      throw root.error("placement",
                       fmt::format("found {} for rank {}, expected node:device as in \"gpu07:4\"",
                                   toml_string(text), placement.size()));
    }
    placement.push_back({text.substr(0, colon), std::stoi(digits)});
  }
  return placement;
}

Schedule read_schedule(TomlTable table, const std::vector<Stage>& stages) {
  Schedule schedule;
  schedule.name = table.string("name");
  schedule.micro_batches = read_int(table, "micro_batches", 1, limits::kBatch);
  schedule.asynchronous = table.boolean_or("asynchronous", false);
  for (const auto& stage : stages) schedule.stages.push_back({stage.pipeline_rank, stage.chunk});
  for (const auto& row : table.strings("rows")) {
    const auto where = table.error("rows", fmt::format("row {}", schedule.ranks.size() + 1));
    schedule.ranks.push_back(parse_csv_row(row, where.what()));
  }
  table.finish();
  return schedule;
}

}  // namespace

std::string to_toml(const Plan& plan) {
  auto text = fmt::format("format = \"{}\"\ncluster = {}\ndevice = {}\n\n", kFormat,
                          toml_string(plan.cluster), toml_string(plan.device));
  text += "# Global stage by global stage.\n" + stage_list(plan);
  text += "\n# Rank by rank: node:device.\n" + placement_list(plan) + "\n";
  text += layout_table(plan.layout) + "\n" + prediction_table(plan.prediction) + "\n";
  text += "# Pipeline rank by pipeline rank: stage, operation, micro-batch.\n" +
          schedule_table(plan, "[schedule]", plan.schedule);
  for (const Schedule& other : plan.other_schedules) {
    text += "\n" + schedule_table(plan, "[[other_schedules]]", other);
  }
  return text + "\n" + to_toml(plan.job, "job.");
}

Plan parse_plan(std::string_view text, const std::string& name) {
  const auto file = TomlFile::parse(text, name);
  auto root = file.root();
  root.choice("format", {std::string(kFormat)});
  Plan plan;
  plan.cluster = root.string("cluster");
  plan.device = root.string("device");
  plan.layout = read_layout(root.table("layout"));
  plan.stages = read_stages(root);
  plan.schedule = read_schedule(root.table("schedule"), plan.stages);
  for (auto& other : root.tables("other_schedules")) {
    plan.other_schedules.push_back(read_schedule(std::move(other), plan.stages));
  }
  plan.placement = read_placement(root);
  plan.prediction = read_prediction(root.table("prediction"));
  auto job = root.table("job");
  plan.job = parse_job(job, std::filesystem::absolute(name).parent_path().string());
  job.finish();
  root.finish();
  if (const auto fault = find_fault(plan)) throw root.error(fault->key, fault->found_and_expected);
  return plan;
}

Plan read_plan(const std::string& path) {
  return parse_plan(read_text_file(path), path);
}

bool is_plan_file(std::string_view text) {
  return text.starts_with("format = \"trireme-plan-");
}

}  // namespace trireme
