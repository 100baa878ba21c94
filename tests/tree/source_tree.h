#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <vector>

// The project's own text files as values, so that rules about them are plain functions that tests
// can feed with good and bad files alike.
namespace trireme::tree {

struct SourceFile {
  std::string path;  // from the root, with '/'
  std::vector<std::string> lines;
  bool executable = false;
};

// A broken rule and where. Lines count from 1; 0 stands for the file as a whole.
struct Complaint {
  std::string file;
  int line = 0;
  std::string rule;
  bool operator==(const Complaint&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Complaint& complaint);  // "file:line: rule"

SourceFile make_file(std::string path, std::string_view text, bool executable = false);

// Every source, script, build and documentation file below `root`, ordered by path; without build
// products, runs, test data and hidden folders other than .ci.
std::vector<SourceFile> read_tree(const std::string& root);

bool has_extension(const SourceFile& file, std::string_view extension);
bool is_below(std::string_view path,
              std::string_view folder);  // "planner/plan/model.h" is below "planner/"
bool is_cpp(const SourceFile& file);
bool is_script(
    const SourceFile& file);  // a program in scripts/ or .ci/, not the parts that scripts share
bool is_source(const SourceFile& file);  // C++, Python or shell

}  // namespace trireme::tree
