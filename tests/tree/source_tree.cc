#include "tests/tree/source_tree.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

namespace trireme::tree {
namespace {

namespace fs = std::filesystem;

bool is_skipped_folder(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  if (name.front() == '.') return path != ".ci";
  return path == "build" || path == "runs" || path == "tests/data" || name == "__pycache__";
}

bool is_project_text(const SourceFile& file) {
  const std::string name = fs::path(file.path).filename().string();
  // At the root lie the plans, jobs and profiles of whoever tries the README there.
  if (name == file.path && has_extension(file, ".toml")) return false;
  return is_source(file) || name == "CMakeLists.txt" || has_extension(file, ".md") ||
         has_extension(file, ".toml") || has_extension(file, ".cmake");
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

bool is_executable(const fs::path& path) {
  return (fs::status(path).permissions() & fs::perms::owner_exec) != fs::perms::none;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Complaint& complaint) {
  return out << complaint.file << ':' << complaint.line << ": " << complaint.rule;
}

SourceFile make_file(std::string path, std::string_view text, bool executable) {
  SourceFile file{std::move(path), {}, executable};
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    file.lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return file;
}

std::vector<SourceFile> read_tree(const std::string& root) {
  std::vector<SourceFile> files;
  for (fs::recursive_directory_iterator at(root), end; at != end; ++at) {
    const std::string path = fs::relative(at->path(), root).generic_string();
    if (at->is_directory()) {
      if (is_skipped_folder(path)) at.disable_recursion_pending();
    } else if (at->is_regular_file() && is_project_text({path, {}, false})) {
      files.push_back(make_file(path, read_text(at->path()), is_executable(at->path())));
    }
  }
  std::sort(files.begin(), files.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

bool has_extension(const SourceFile& file, std::string_view extension) {
  return file.path.size() > extension.size() && file.path.ends_with(extension);
}

bool is_below(std::string_view path, std::string_view folder) {
  return path.starts_with(folder);
}

bool is_cpp(const SourceFile& file) {
  static constexpr std::array<std::string_view, 5> kExtensions = {".h", ".cc", ".inc", ".cu",
                                                                  ".cuh"};
  return std::any_of(kExtensions.begin(), kExtensions.end(),
                     [&](std::string_view extension) { return has_extension(file, extension); });
}

bool is_script(const SourceFile& file) {
  const bool in_scripts = is_below(file.path, "scripts/") || is_below(file.path, ".ci/");
  return in_scripts && !is_below(file.path, "scripts/lib/") && !has_extension(file, ".md");
}

bool is_source(const SourceFile& file) {
  return is_cpp(file) || is_script(file) || has_extension(file, ".py") ||
         has_extension(file, ".sh");
}

}  // namespace trireme::tree
