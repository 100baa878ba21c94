#include "runtime/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "runtime/checkpoint/hugging_face.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/checkpoint/sha256.h"
#include "runtime/comm/communicator.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "trireme-checkpoint-1";

void sync_path(const std::string& path, int flags) {
  const int descriptor = open(path.c_str(), flags | O_CLOEXEC);
  const bool synced = descriptor >= 0 && fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  if (!synced)
    throw Error(ErrorKind::failed,
                fmt::format("{}: cannot be synced: {}", path, std::strerror(reason)));
}

void write_text(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  const bool written =
      file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = file != nullptr && std::fclose(file) == 0;
  if (!written || !closed) {
    throw Error(ErrorKind::failed,
                fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  }
  sync_path(path, O_RDONLY);
}

std::string file_name(const char* what, int pipeline_rank, int pipeline) {
  if (pipeline == 1) return fmt::format("{}.safetensors", what);
  return fmt::format("{}-{:05}-of-{:05}.safetensors", what, pipeline_rank + 1, pipeline);
}

enum class State { weights, momentum, variance };

// What one rank contributes to a checkpoint, and the gathering of whole parameters on the writer of
// its tensor group.
class Gatherer {
 public:
  Gatherer(const Plan& plan, Rank rank, Device& device, Transport& transport,
           std::span<const StageState> stages)
      : group_(tensor_group(plan.layout, rank)),
        model_(plan.job.model),
        layout_(plan.layout),
        rank_(rank),
        device_(device),
        transport_(transport),
        stages_(stages) {}

  bool is_writer() const { return group_.front() == rank_; }

  // The stage state and spec of a parameter that this rank saves, if it does.
  std::optional<std::pair<const StageState*, const ParameterSpec*>> find(
      const std::string& name) const {
    for (const auto& stage : stages_) {
      for (const auto& spec : stage.parameters->specs) {
        if (spec.name == name && !spec.tied_copy) return std::pair(&stage, &spec);
      }
    }
    return std::nullopt;
  }

  // Members other than the writer: send every shard, in the order in which the writer will ask. As
  // sends do not block, the writer says of each that it has it: no more than two are on their way.
  void send_shards(const std::vector<std::string>& names, State state) {
    for (const auto& name : names) {
      const auto [stage, spec] = *find(name);
      if (spec->sharding == Sharding::replicated || spec->local_count() == 0) continue;
      auto shard = std::make_shared<std::vector<float>>(spec->local_count());
      device_.copy_to_host(shard->data(), memory(*stage, state) + spec->offset, shard->size());
      transport_.send(group_.front(), kTag, *shard, shard);
      ++unanswered_;
      await_answers(1);
    }
    await_answers(0);
  }

  // The writer: the whole parameter, row-major.
  std::vector<float> whole(const std::string& name, State state) {
    const auto [stage, spec] = *find(name);
    std::vector<float> all(static_cast<size_t>(spec->rows) * spec->columns);
    for (size_t member = 0; member < group_.size(); ++member) {
      const ParameterSpec part = spec_of(*stage, name, static_cast<int>(member));
      std::vector<float> shard(part.local_count());
      if (shard.empty()) continue;
      if (member == 0) {
        device_.copy_to_host(shard.data(), memory(*stage, state) + spec->offset, shard.size());
      } else {
        transport_.receive(group_[member], kTag, shard)->wait();
        transport_.send(group_[member], kHadTag, *had_, had_);
      }
      place(part, shard, all);
      if (spec->sharding == Sharding::replicated) break;
    }
    return all;
  }

 private:
  static constexpr uint64_t kTag = make_tag(TagSpace::checkpoint, 1);
  static constexpr uint64_t kHadTag = make_tag(TagSpace::checkpoint, 3);

  // Until no more than so many are left.
  void await_answers(int left) {
    for (; unanswered_ > left; --unanswered_) {
      float had = 0;
      transport_.receive(group_.front(), kHadTag, {&had, 1})->wait();
    }
  }
  static const float* memory(const StageState& stage, State state) {
    if (state == State::weights) return stage.weights;
    return state == State::momentum ? stage.momentum : stage.variance;
  }
  ParameterSpec spec_of(const StageState& stage, const std::string& name, int member) const {
    if (member == 0) return stage.parameters->find(name);
    for (const auto& spec :
         stage_parameters(model_, stage_with(name), layout_.tensor, member).specs) {
      if (spec.name == name) return spec;
    }
    TRIREME_CHECK(false);
  }
  // A stage that holds just what is needed to know how `name` is sharded.
  Stage stage_with(const std::string& name) const {
    Stage stage;
    stage.embedding = name.starts_with("embedding.");
    stage.head = name.starts_with("head.") || name.starts_with("final_norm.");
    if (name.starts_with("layers.")) {
      stage.first_layer = std::stoi(name.substr(7));
      stage.layers = 1;
    }
    return stage;
  }
  static void place(const ParameterSpec& part, const std::vector<float>& shard,
                    std::vector<float>& all) {
    const int first_row = part.sharding == Sharding::rows ? part.local.begin : 0;
    const int first_column = part.sharding == Sharding::columns ? part.local.begin : 0;
    const auto columns = static_cast<size_t>(part.local_columns());
    for (int row = 0; row < part.local_rows(); ++row) {
      std::copy_n(shard.data() + row * columns, columns,
                  all.data() + static_cast<size_t>(first_row + row) * part.columns + first_column);
    }
  }

  std::vector<Rank> group_;
  const Model& model_;
  const Layout& layout_;
  Rank rank_;
  Device& device_;
  Transport& transport_;
  std::span<const StageState> stages_;
  int unanswered_ = 0;
  const std::shared_ptr<std::vector<float>> had_ = std::make_shared<std::vector<float>>(1);
};

std::vector<float> transpose(const std::vector<float>& matrix, size_t rows, size_t columns) {
  std::vector<float> turned(matrix.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) turned[c * rows + r] = matrix[r * columns + c];
  }
  return turned;
}

// The Hugging Face tensors whose parameters `gatherer` saves, with shapes.
struct OwnTensor {
  HuggingFaceTensor tensor;
  TensorEntry entry;
};
std::vector<OwnTensor> own_tensors(const Model& model, const Gatherer& gatherer) {
  std::vector<OwnTensor> own;
  for (auto& tensor : hugging_face_tensors(model)) {
    if (!gatherer.find(tensor.parts.front())) continue;
    int64_t rows = 0;
    for (const auto& part : tensor.parts) rows += gatherer.find(part)->second->rows;
    const ParameterSpec& first = *gatherer.find(tensor.parts.front())->second;
    std::vector<int64_t> shape{rows};
    if (!first.vector) shape.push_back(first.columns);
    if (tensor.transposed) std::reverse(shape.begin(), shape.end());
    own.push_back({tensor, {tensor.name, shape}});
  }
  return own;
}

SafetensorsWriter::Summary write_model(const std::string& path,
                                       const std::vector<OwnTensor>& tensors, Gatherer& gatherer) {
  std::vector<TensorEntry> entries;
  for (const auto& own : tensors) entries.push_back(own.entry);
  SafetensorsWriter writer(path, entries);
  for (const auto& [tensor, entry] : tensors) {
    std::vector<float> stacked;
    for (const auto& part : tensor.parts) {
      const auto whole = gatherer.whole(part, State::weights);
      stacked.insert(stacked.end(), whole.begin(), whole.end());
    }
    if (tensor.transposed) stacked = transpose(stacked, entry.shape[1], entry.shape[0]);
    writer.write(stacked);
  }
  return writer.close();
}

SafetensorsWriter::Summary write_optimizer(const std::string& path,
                                           const std::vector<std::string>& names,
                                           Gatherer& gatherer) {
  std::vector<TensorEntry> entries;
  for (const char* kind : {"momentum.", "variance."}) {
    for (const auto& name : names) {
      const ParameterSpec& spec = *gatherer.find(name)->second;
      entries.push_back({kind + name, {spec.rows, spec.columns}});
    }
  }
  SafetensorsWriter writer(path, entries);
  for (const State state : {State::momentum, State::variance}) {
    for (const auto& name : names) writer.write(gatherer.whole(name, state));
  }
  return writer.close();
}

// A writer's word to rank 0 about its two files, as floats because messages are floats: one byte
// each.
constexpr size_t kReportFloats = 1 + 2 * (8 + 64);
using Report = std::vector<float>;

void put_summary(Report& report, size_t at, const SafetensorsWriter::Summary& summary) {
  for (int i = 0; i < 8; ++i)
    report[at + i] = static_cast<float>((summary.bytes >> (8 * i)) & 0xFFU);
  for (size_t i = 0; i < 64; ++i) report[at + 8 + i] = static_cast<float>(summary.sha256[i]);
}
SafetensorsWriter::Summary get_summary(const Report& report, size_t at) {
  SafetensorsWriter::Summary summary;
  for (int i = 0; i < 8; ++i) summary.bytes |= static_cast<uint64_t>(report[at + i]) << (8 * i);
  for (size_t i = 0; i < 64; ++i) summary.sha256 += static_cast<char>(report[at + 8 + i]);
  return summary;
}

Report write_own_files(const Plan& plan, int pipeline_rank, const std::string& directory,
                       Gatherer& gatherer, const std::vector<OwnTensor>& tensors,
                       const std::vector<std::string>& names) {
  fs::create_directories(directory);
  Report report(kReportFloats);
  const int pipeline = plan.layout.pipeline;
  put_summary(report, 1,
              write_model(directory + "/" + file_name("model", pipeline_rank, pipeline), tensors,
                          gatherer));
  put_summary(report, 1 + 72,
              write_optimizer(directory + "/" + file_name("optimizer", pipeline_rank, pipeline),
                              names, gatherer));
  report[0] = 1;
  return report;
}

// Which shard file each tensor is in, for transformers.
nlohmann::json weight_index(const Plan& plan) {
  nlohmann::json map;
  int64_t bytes = 0;
  for (const auto& stage : plan.stages) {
    const auto parameters = stage_parameters(plan.job.model, stage, 1, 0);
    for (const auto& tensor : hugging_face_tensors(plan.job.model)) {
      for (const auto& spec : parameters.specs) {
        const bool here =
            std::find(tensor.parts.begin(), tensor.parts.end(), spec.name) != tensor.parts.end();
        if (!here || spec.tied_copy) continue;
        map[tensor.name] = file_name("model", stage.pipeline_rank, plan.layout.pipeline);
        bytes += static_cast<int64_t>(spec.local_count() * sizeof(float));
      }
    }
  }
  return {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
}

void write_listed(const std::string& directory, const std::string& name, const std::string& text,
                  nlohmann::json& files) {
  write_text(directory + "/" + name, text);
  Sha256 digest;
  digest.add(text.data(), text.size());
  files.push_back({{"name", name}, {"bytes", text.size()}, {"sha256", digest.hex()}});
}

// What no pipeline rank writes: how the model is described, and the manifest of all files.
void write_descriptions(const Plan& plan, const std::string& directory,
                        const std::vector<Report>& reports, const TrainingState& training) {
  auto files = nlohmann::json::array();
  for (int p = 0; p < plan.layout.pipeline; ++p) {
    const char* kinds[] = {"model", "optimizer"};
    for (size_t k = 0; k < 2; ++k) {
      const auto summary = get_summary(reports[p], 1 + 72 * k);
      files.push_back({{"name", file_name(kinds[k], p, plan.layout.pipeline)},
                       {"bytes", summary.bytes},
                       {"sha256", summary.sha256}});
    }
  }
  if (plan.layout.pipeline > 1) {
    write_listed(directory, "model.safetensors.index.json", weight_index(plan).dump(2) + "\n",
                 files);
  }
  write_listed(directory, "config.json", to_hugging_face_config(plan.job.model), files);
  nlohmann::json manifest{{"format", kFormat}, {"step", training.step}, {"job", plan.job.name}};
  if (training.data) {
    manifest["data"] = {{"tokens", training.data->tokens}, {"mark", training.data->mark}};
  }
  manifest["files"] = files;
  write_text(directory + "/manifest.json", manifest.dump(2) + "\n");
}

// The new checkpoint is sound whether older ones can be removed or not; says what could not be.
std::string remove_old(const RunDirectory& run, int keep) {
  if (keep == 0) return "";
  try {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(run.checkpoints())) {
      if (entry.path().filename().string().starts_with("step-")) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    for (size_t i = 0; i + keep < found.size(); ++i) fs::remove_all(found[i]);
  } catch (const fs::filesystem_error& e) {
    return fmt::format("an older checkpoint stays: {}", e.what());
  }
  return "";
}

void remove_partial(const std::string& partial) {
  std::error_code ignored;  // why it is given up is what counts
  fs::remove_all(partial, ignored);
}

// Rank 0: waits for all writers, completes the directory and puts it in its place.
SavedCheckpoint publish(const Plan& plan, Transport& transport, const Report& own,
                        const std::string& partial, const TrainingState& training,
                        const RunDirectory& run) {
  std::vector<Report> reports{own};
  for (int p = 1; p < plan.layout.pipeline; ++p) {
    reports.emplace_back(kReportFloats);
    transport
        .receive(rank_at(plan.layout, {0, 0, p}), make_tag(TagSpace::checkpoint, 2), reports.back())
        ->wait();
    if (reports.back()[0] != 1) {
      remove_partial(partial);
      throw Error(ErrorKind::peer_lost,
                  fmt::format("pipeline rank {} could not write its part of the checkpoint", p));
    }
  }
  write_descriptions(plan, partial, reports, training);
  sync_path(partial, O_RDONLY | O_DIRECTORY);
  SavedCheckpoint saved{run.checkpoint(training.step), ""};
  if (std::rename(partial.c_str(), saved.directory.c_str()) != 0) {
    throw Error(ErrorKind::failed, fmt::format("{}: cannot be put in place: {}", saved.directory,
                                               std::strerror(errno)));
  }
  sync_path(run.checkpoints(), O_RDONLY | O_DIRECTORY);
  saved.note = remove_old(run, plan.job.checkpoint.keep);
  return saved;
}

}  // namespace

std::optional<SavedCheckpoint> save_checkpoint(const Plan& plan, Rank rank, Device& device,
                                               Transport& transport,
                                               std::span<const StageState> stages,
                                               const TrainingState& training,
                                               const RunDirectory& run) {
  const Coordinates at = coordinates_of(plan.layout, rank);
  if (at.data != 0) return std::nullopt;
  Gatherer gatherer(plan, rank, device, transport, stages);
  const auto tensors = own_tensors(plan.job.model, gatherer);
  std::vector<std::string> names;
  for (const auto& [tensor, entry] : tensors)
    names.insert(names.end(), tensor.parts.begin(), tensor.parts.end());
  if (!gatherer.is_writer()) {
    for (const State state : {State::weights, State::momentum, State::variance})
      gatherer.send_shards(names, state);
    return std::nullopt;
  }
  const std::string partial = run.partial_checkpoint(training.step);
  const auto tell_rank_0 = [&](const Report& report) {
    auto copy = std::make_shared<Report>(report);
    transport.send(Rank(0), make_tag(TagSpace::checkpoint, 2), *copy, copy);
  };
  try {
    const Report report = write_own_files(plan, at.pipeline, partial, gatherer, tensors, names);
    if (rank.value == 0) return publish(plan, transport, report, partial, training, run);
    tell_rank_0(report);
  } catch (const fs::filesystem_error& e) {
    if (rank.value != 0) tell_rank_0(Report(kReportFloats));
    throw Error(ErrorKind::failed, fmt::format("checkpoint: {}", e.what()));
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::peer_lost) throw;
    if (rank.value == 0) remove_partial(partial);
    if (rank.value != 0) tell_rank_0(Report(kReportFloats));
    throw;
  }
  return std::nullopt;
}

namespace {

void require_same_model(const std::string& path, const Model& model) {
  const Model saved = model_from_hugging_face(path, model.sequence);
  if (saved == model) return;
  const auto theirs = nlohmann::json::parse(to_hugging_face_config(saved));
  const auto ours = nlohmann::json::parse(to_hugging_face_config(model));
  std::string difference = "another model";
  for (const auto& [key, value] : ours.items()) {
    if (!theirs.contains(key) || theirs.at(key) == value) continue;
    difference = fmt::format("{}: found {}, expected {}, which the job says", key,
                             theirs.at(key).dump(), value.dump());
    break;
  }
  throw Error(ErrorKind::bad_input, fmt::format("{}: {}", path, difference));
}

}  // namespace

TrainingState read_training_state(const std::string& directory, const Model& model) {
  const std::string path = directory + "/manifest.json";
  const auto manifest = nlohmann::json::parse(read_text_file(path), nullptr, false);
  if (!manifest.is_object() || manifest.value("format", "") != kFormat) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: found no manifest of format {}", path, kFormat));
  }
  TrainingState state;
  try {
    state.step = manifest.at("step");
    if (manifest.contains("data")) {
      const auto& data = manifest.at("data");
      state.data = TokenSource::Identity{data.at("tokens"), data.at("mark")};
    }
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorKind::bad_input, fmt::format("{}: {}", path, e.what()));
  }
  require_same_model(directory + "/config.json", model);
  return state;
}

}  // namespace trireme
