#include "tests/tree/style_rules.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <regex>
#include <string_view>

namespace trireme::tree {
namespace {

// Reports `rule` at each line of `file` for which `broken` holds.
template <typename Predicate>
void complain_per_line(const SourceFile& file, const std::string& rule, Predicate broken,
                       std::vector<Complaint>& complaints) {
  for (size_t i = 0; i < file.lines.size(); ++i) {
    if (broken(file.lines[i])) complaints.push_back({file.path, static_cast<int>(i) + 1, rule});
  }
}

// Characters, not bytes: continuation bytes of UTF-8 do not count.
size_t columns(std::string_view line) {
  return static_cast<size_t>(std::count_if(line.begin(), line.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// The words are written apart so that this file keeps its own rule.
bool promises(const std::string& line) {
  static const std::regex words(
      "\\b(TO"
      "DO|FIX"
      "ME|XX"
      "X)\\b");
  return std::regex_search(line, words);
}

bool names_a_machine_path(const SourceFile& file, const std::string& line) {
  static const std::regex home(
      "(^|[^\\w./-])/(wo"
      "rk|ro"
      "ot|ho"
      "me)/");
  static const std::regex temporary("(^|[^\\w./-])/tmp(/|\\b)");
  if (std::regex_search(line, home)) return true;
  return !is_below(file.path, "tests/") && std::regex_search(line, temporary);
}

void check_text(const SourceFile& file, std::vector<Complaint>& complaints) {
  complain_per_line(file, "no promises: do it or leave it out", promises, complaints);
  complain_per_line(
      file, "no path of one machine",
      [&](const std::string& line) { return names_a_machine_path(file, line); }, complaints);
  complain_per_line(
      file, "no tab", [](const std::string& line) { return line.find('\t') != std::string::npos; },
      complaints);
  complain_per_line(
      file, "no trailing blank",
      [](const std::string& line) {
        return !line.empty() && (line.back() == ' ' || line.back() == '\r');
      },
      complaints);
}

void check_size(const SourceFile& file, std::vector<Complaint>& complaints) {
  complain_per_line(
      file, "at most " + std::to_string(kMaxColumns) + " characters a line",
      [](const std::string& line) { return columns(line) > kMaxColumns; }, complaints);
  if (file.lines.size() > kMaxLines) {
    complaints.push_back(
        {file.path, 0, "at most " + std::to_string(kMaxLines) + " lines: a file tells one story"});
  }
}

void check_header(const SourceFile& file, std::vector<Complaint>& complaints) {
  if (file.lines.empty() || file.lines.front() != "#pragma once") {
    complaints.push_back({file.path, 1, "a header begins with #pragma once"});
  }
  static const std::regex definition(
      "^\\s*(class|struct)\\s+\\w[^;]*$|^\\s*(class|struct)\\s+\\w.*\\{.*$");
  for (size_t i = 0; i < file.lines.size(); ++i) {
    if (file.lines[i].find("//") != std::string::npos) return;
    if (!std::regex_search(file.lines[i], definition)) continue;
    complaints.push_back({file.path, static_cast<int>(i) + 1,
                          "a comment stands before the first class of a header"});
    return;
  }
}

void check_script(const SourceFile& file, std::vector<Complaint>& complaints) {
  if (!file.executable) complaints.push_back({file.path, 0, "a script is executable"});
  const std::string first = file.lines.empty() ? "" : file.lines.front();
  if (!first.starts_with("#!")) complaints.push_back({file.path, 1, "a script begins with #!"});
  const bool strict =
      std::find(file.lines.begin(), file.lines.end(), "set -euo pipefail") != file.lines.end();
  if (first.ends_with("bash") && !strict) {
    complaints.push_back({file.path, 0, "a shell script says: set -euo pipefail"});
  }
}

// The link's path from the root, or an empty string when it leads out of the tree or stays on the
// page.
std::string link_target(const std::string& page, std::string target) {
  target = target.substr(0, target.find('#'));
  if (target.empty() || target.find(':') != std::string::npos) return "";
  return (std::filesystem::path(page).parent_path() / target).lexically_normal().generic_string();
}

// Whether a `quoted` word is a path of this project, rather than a pattern, a command or a file of
// a run.
bool is_project_path(const std::string& word) {
  static const std::regex path(
      "(launcher|planner|runtime|topology|configs|tests|docs|scripts|benchmarks)/[\\w./-]+");
  return std::regex_match(word, path);
}

}  // namespace

std::vector<Complaint> check_style(const SourceFile& file) {
  std::vector<Complaint> complaints;
  check_text(file, complaints);
  if (is_source(file)) check_size(file, complaints);
  if (has_extension(file, ".h")) check_header(file, complaints);
  if (is_script(file)) check_script(file, complaints);
  return complaints;
}

std::vector<Complaint> check_links(const SourceFile& file,
                                   const std::function<bool(const std::string&)>& exists) {
  static const std::regex link("\\]\\(([^)\\s]+)\\)");
  static const std::regex quoted("`([^`]+)`");
  std::vector<Complaint> complaints;
  bool in_code = false;
  for (size_t i = 0; i < file.lines.size(); ++i) {
    const std::string& line = file.lines[i];
    if (line.starts_with("```")) in_code = !in_code;
    if (in_code) continue;
    const auto complain_unless_there = [&](const std::string& path) {
      if (!path.empty() && !exists(path)) {
        complaints.push_back(
            {file.path, static_cast<int>(i) + 1, "leads to a file that is not there: " + path});
      }
    };
    const std::sregex_iterator end;
    for (std::sregex_iterator at(line.begin(), line.end(), link); at != end; ++at) {
      complain_unless_there(link_target(file.path, (*at)[1]));
    }
    for (std::sregex_iterator at(line.begin(), line.end(), quoted); at != end; ++at) {
      if (is_project_path((*at)[1])) complain_unless_there((*at)[1]);
    }
  }
  return complaints;
}

}  // namespace trireme::tree
