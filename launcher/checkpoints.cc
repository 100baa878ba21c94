#include "launcher/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "launcher/secret.h"
#include "planner/plan/run_directory.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::optional<std::string> file_defect(const std::string& directory, const Json& entry) {
  const std::string name = entry.at("name");
  const fs::path path = fs::path(directory) / name;
  if (fs::path(name).has_parent_path()) {
    return fmt::format("its manifest names \"{}\", which lies elsewhere", name);
  }
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) {
    return fmt::format("{} is missing", name);
  }
  if (const auto expected = entry.at("bytes").get<uintmax_t>(); bytes != expected) {
    return fmt::format("{} has {} bytes, its manifest says {}", name, bytes, expected);
  }
  if (sha256_of_file(path) != entry.at("sha256").get<std::string>()) {
    return fmt::format("{} does not have the content that its manifest promises", name);
  }
  return std::nullopt;
}

// A manifest that leaves files out proves nothing of them.
std::optional<std::string> files_defect(const std::string& directory, const Json& files) {
  bool model = false, optimizer = false, config = false;
  for (const Json& entry : files) {
    if (auto defect = file_defect(directory, entry)) {
      return defect;
    }
    const std::string name = entry.at("name");
    model = model || (name.starts_with("model") && name.ends_with(".safetensors"));
    optimizer = optimizer || name.starts_with("optimizer");
    config = config || name == "config.json";
  }
  if (!model || !optimizer || !config) {
    return "its manifest does not name model, optimizer and config.json";
  }
  return std::nullopt;
}

// Newest first: the names count steps with leading zeros.
std::vector<std::string> checkpoint_directories(const std::string& root) {
  std::vector<std::string> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, error)) {
    if (entry.is_directory(error) && entry.path().filename().string().starts_with("step-")) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

}  // namespace

std::optional<std::string> checkpoint_defect(const std::string& directory, int& step) try {
  std::ifstream file(directory + "/manifest.json");
  if (!file) {
    return "it has no manifest.json";
  }
  const Json manifest = Json::parse(file);
  if (auto defect = files_defect(directory, manifest.at("files"))) {
    return defect;
  }
  const Json& steps = manifest.at("step");
  if (!steps.is_number_unsigned() || steps > std::numeric_limits<int>::max()) {
    return fmt::format("its manifest says step {}", steps.dump());
  }
  step = steps;
  const std::string name = fs::path(directory).filename();
  if (name.starts_with("step-") && name != RunDirectory::checkpoint_name(step)) {
    return fmt::format("its manifest says step {}", step);
  }
  return std::nullopt;
} catch (const Json::exception&) {
  return "its manifest.json is broken";
} catch (const std::exception& error) {
  return error.what();
}

void remove_partial_checkpoints(const std::string& run_directory) {
  std::error_code ignored;  // nothing reads them
  std::vector<fs::path> partial;
  for (const auto& entry :
       fs::directory_iterator(RunDirectory{run_directory}.checkpoints(), ignored)) {
    if (entry.path().filename().string().starts_with(RunDirectory::kPartial)) {
      partial.push_back(entry.path());
    }
  }
  for (const fs::path& path : partial) {
    fs::remove_all(path, ignored);
  }
}

std::optional<FoundCheckpoint> find_checkpoint(const std::string& path,
                                               std::vector<std::string>& skipped) {
  const std::string inside = RunDirectory{path}.checkpoints();
  std::vector<std::string> candidates = {path};
  if (fs::is_directory(inside)) {
    candidates = checkpoint_directories(inside);
  }
  for (const std::string& directory : candidates) {
    FoundCheckpoint found{fs::absolute(directory).lexically_normal()};
    if (const auto defect = checkpoint_defect(directory, found.step)) {
      skipped.push_back(fmt::format("checkpoint {} is passed over: {}", directory, *defect));
    } else {
      return found;
    }
  }
  return std::nullopt;
}

}  // namespace trireme
