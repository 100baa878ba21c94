#include "runtime/checkpoint/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/checkpoint/hugging_face.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using Files = std::vector<std::unique_ptr<SafetensorsFile>>;

std::set<std::string> names_in(const std::string& directory, const std::string& prefix) {
  std::set<std::string> names;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(directory, failure)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".safetensors")) names.insert(name);
  }
  return names;
}

Files open_all(const std::string& directory, const std::set<std::string>& names,
               const std::string& prefix) {
  if (names.empty()) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: found no {}*.safetensors", directory, prefix));
  }
  Files files;
  for (const auto& name : names) {
    files.push_back(std::make_unique<SafetensorsFile>(fmt::format("{}/{}", directory, name)));
  }
  return files;
}

// The files that an index names, where there is one: others that lie there, such as those of an
// older model in more parts, are not the model.
std::set<std::string> model_file_names(const std::string& directory) {
  const std::string path = directory + "/model.safetensors.index.json";
  if (!std::filesystem::exists(path)) return names_in(directory, "model");
  const auto index = nlohmann::json::parse(read_text_file(path), nullptr, false);
  std::set<std::string> names;
  try {
    for (const auto& [tensor, file] : index.at("weight_map").items()) {
      names.insert(file.get<std::string>());
    }
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: not an index of weights: {}", path, e.what()));
  }
  for (const std::string& name : names) {
    if (!std::filesystem::path(name).has_parent_path()) continue;
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: it names \"{}\", which lies elsewhere", path, name));
  }
  return names;
}

// The names a tensor may have: GPT-2 is published with and without its "transformer." prefix.
std::vector<std::string> known_names(const std::string& name) {
  const std::string prefix = "transformer.";
  if (name.starts_with(prefix)) return {name, name.substr(prefix.size())};
  return {name};
}

// Reads the local part of a [rows, columns] parameter that starts at `first_row` of a tensor of
// `total_rows` rows, stored transposed or not.
void read_slice(const SafetensorsFile& file, const SafetensorsFile::Tensor& tensor, bool transposed,
                int64_t first_row, int64_t total_rows, const ParameterSpec& spec, float* local) {
  const int64_t row = first_row + (spec.sharding == Sharding::rows ? spec.local.begin : 0);
  const int64_t column = spec.sharding == Sharding::columns ? spec.local.begin : 0;
  const auto rows = static_cast<size_t>(spec.local_rows());
  const auto columns = static_cast<size_t>(spec.local_columns());
  if (!transposed) {
    for (size_t r = 0; r < rows; ++r) {
      const int64_t first = (row + static_cast<int64_t>(r)) * spec.columns + column;
      file.read(tensor, first, {local + r * columns, columns});
    }
    return;
  }
  std::vector<float> line(rows);
  for (size_t c = 0; c < columns; ++c) {
    file.read(tensor, (column + static_cast<int64_t>(c)) * total_rows + row, line);
    for (size_t r = 0; r < rows; ++r) local[r * columns + c] = line[r];
  }
}

}  // namespace

ModelFiles::ModelFiles(const std::string& directory, const Model& model)
    : files_(open_all(directory, model_file_names(directory), "model")) {
  place_parameters(directory, model);
}

void ModelFiles::place_parameters(const std::string& directory, const Model& model) {
  std::map<std::string, ParameterSpec> specs;
  for (const auto& spec : all_parameters(model)) specs[spec.name] = spec;
  for (const auto& theirs : hugging_face_tensors(model)) {
    Place place;
    for (const auto& name : known_names(theirs.name)) {
      for (const auto& file : files_) {
        const auto found = file->tensors().find(name);
        if (found == file->tensors().end()) continue;
        if (place.tensor != nullptr) {
          throw Error(ErrorKind::bad_input,
                      fmt::format("{}: found tensor {} also in {}, expected it once", file->path(),
                                  name, place.file->path()));
        }
        place = {file.get(), &found->second};
      }
    }
    if (place.tensor == nullptr) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("{}: tensor {} is missing", directory, theirs.name));
    }
    place.transposed = theirs.transposed;
    const ParameterSpec& first = specs.at(theirs.parts.front());
    for (const auto& part : theirs.parts) place.total_rows += specs.at(part).rows;
    std::vector<int64_t> shape{place.total_rows};
    if (!first.vector) shape.push_back(first.columns);
    if (theirs.transposed) std::reverse(shape.begin(), shape.end());
    if (place.tensor->shape != shape) {
      throw Error(
          ErrorKind::bad_input,
          fmt::format("{}: {}: found shape [{}], expected [{}]", place.file->path(), theirs.name,
                      fmt::join(place.tensor->shape, ", "), fmt::join(shape, ", ")));
    }
    for (const auto& part : theirs.parts) {
      places_[part] = place;
      place.first_row += specs.at(part).rows;
    }
  }
}

void ModelFiles::read(const ParameterSpec& spec, float* local) const {
  const Place& place = places_.at(spec.name);
  read_slice(*place.file, *place.tensor, place.transposed, place.first_row, place.total_rows, spec,
             local);
}

OptimizerFiles::OptimizerFiles(const std::string& directory)
    : files_(open_all(directory, names_in(directory, "optimizer"), "optimizer")) {}

void OptimizerFiles::read(const std::string& kind, const ParameterSpec& spec, float* local) const {
  const std::string name = kind + "." + spec.name;
  for (const auto& file : files_) {
    const auto found = file->tensors().find(name);
    if (found == file->tensors().end()) continue;
    if (found->second.shape != std::vector<int64_t>{spec.rows, spec.columns}) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("{}: {} has another shape than the model", file->path(), name));
    }
    read_slice(*file, found->second, false, 0, spec.rows, spec, local);
    return;
  }
  throw Error(ErrorKind::bad_input,
              fmt::format("{}: tensor {} is missing", files_.front()->path(), name));
}

}  // namespace trireme
