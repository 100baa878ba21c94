#include "tests/tree/include_rules.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace trireme::tree {
namespace {

struct Layer {
  std::string_view folder;
  std::vector<std::string_view> may_include;
};

// A path belongs to the first layer whose folder it is below, so inner folders stand before outer
// ones.
const std::array<Layer, 6>& layers() {
  static const std::array<Layer, 6> all = {{
      {"topology/base/", {"topology/base/"}},
      {"topology/", {"topology/base/", "topology/"}},
      {"planner/plan/", {"topology/base/", "topology/", "planner/plan/"}},
      {"planner/", {"topology/base/", "topology/", "planner/plan/", "planner/"}},
      {"launcher/", {"topology/base/", "topology/", "planner/plan/", "planner/", "launcher/"}},
      {"runtime/", {"topology/base/", "topology/", "planner/plan/", "runtime/"}},
  }};
  return all;
}

const Layer* layer_of(std::string_view path) {
  const auto found = std::find_if(layers().begin(), layers().end(),
                                  [&](const Layer& layer) { return is_below(path, layer.folder); });
  return found == layers().end() ? nullptr : &*found;
}

struct PackageRule {
  std::string_view header;  // how the included name begins
  enum { only_below, never_below } where;
  std::vector<std::string_view> folders;
  std::string_view text;
};

const std::array<PackageRule, 8>& package_rules() {
  static const std::vector<std::string_view> values = {"topology/", "planner/plan/"};
  static const std::vector<std::string_view> onednn = {"runtime/device/", "benchmarks/"};
  static const std::array<PackageRule, 8> all = {{
      {"boost/",
       PackageRule::only_below,
       {"launcher/", "tests/launcher/"},
       "Boost belongs to launcher/"},
      {"dnnl", PackageRule::only_below, onednn, "oneDNN belongs to runtime/device/"},
      {"oneapi/dnnl", PackageRule::only_below, onednn, "oneDNN belongs to runtime/device/"},
      {"gloo/", PackageRule::only_below, {"runtime/comm/"}, "Gloo belongs to runtime/comm/"},
      {"chrono", PackageRule::never_below, values, "values know no clock"},
      {"thread", PackageRule::never_below, values, "values know no threads"},
      {"sys/socket.h",
       PackageRule::never_below,
       {"topology/", "planner/"},
       "planning knows no sockets"},
      {"netinet/",
       PackageRule::never_below,
       {"topology/", "planner/"},
       "planning knows no sockets"},
  }};
  return all;
}

struct Include {
  std::string name;
  bool quoted = false;
};

std::optional<Include> parse_include(std::string_view line) {
  const auto skip_blanks = [&] {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  };
  const auto take = [&](std::string_view word) {
    skip_blanks();
    if (!line.starts_with(word)) return false;
    line.remove_prefix(word.size());
    return true;
  };
  if (!take("#") || !take("include")) return std::nullopt;
  const bool quoted = take("\"");
  if (!quoted && !take("<")) return std::nullopt;
  const size_t end = line.find(quoted ? '"' : '>');
  if (end == std::string_view::npos) return std::nullopt;
  return Include{std::string(line.substr(0, end)), quoted};
}

bool is_below_any(std::string_view path, const std::vector<std::string_view>& folders) {
  return std::any_of(folders.begin(), folders.end(),
                     [&](std::string_view folder) { return is_below(path, folder); });
}

// The rule that an include of the project's own header breaks, if any.
std::optional<std::string> broken_by_own(const std::string& path, const std::string& name) {
  const Layer* target = layer_of(name);
  const bool outside = is_below(name, "tests/") || is_below(name, "benchmarks/");
  if (name.find("..") != std::string::npos || (target == nullptr && !outside)) {
    return "\"" + name + "\": includes are written from the root, packages stand in <>";
  }
  const Layer* layer = layer_of(path);
  if (layer == nullptr) return std::nullopt;
  if (outside) return "\"" + name + "\": the program does not know its tests and benchmarks";
  const auto& allowed = layer->may_include;
  if (std::find(allowed.begin(), allowed.end(), target->folder) != allowed.end())
    return std::nullopt;
  return "\"" + name + "\": " + std::string(layer->folder) + " must not know " +
         std::string(target->folder);
}

std::optional<std::string> broken_by_package(const SourceFile& file, const std::string& name) {
  const std::string shown = "<" + name + ">: ";
  if (layer_of(name) != nullptr) return shown + "the project's own headers stand in quotes";
  if (is_below(name, "toml++/") && has_extension(file, ".h")) {
    return shown + "toml++ is included by .cc files only";
  }
  for (const PackageRule& rule : package_rules()) {
    if (!is_below(name, rule.header)) continue;
    const bool inside = is_below_any(file.path, rule.folders);
    if (inside == (rule.where == PackageRule::never_below)) return shown + std::string(rule.text);
  }
  return std::nullopt;
}

}  // namespace

std::vector<Complaint> check_includes(const SourceFile& file) {
  std::vector<Complaint> complaints;
  for (size_t i = 0; i < file.lines.size(); ++i) {
    const auto include = parse_include(file.lines[i]);
    if (!include) continue;
    const auto rule = include->quoted ? broken_by_own(file.path, include->name)
                                      : broken_by_package(file, include->name);
    if (rule) complaints.push_back({file.path, static_cast<int>(i) + 1, *rule});
  }
  return complaints;
}

}  // namespace trireme::tree
