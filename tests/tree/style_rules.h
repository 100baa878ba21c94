#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/tree/source_tree.h"

namespace trireme::tree {

// What a file must be like, whatever it says. Each rule is applied to the kinds of file it makes
// sense for:
//   all text      no promise words (see style_rules.cc), no paths of one machine, no trailing
//   blanks, no tabs, a newline
//                 at the end
//   sources       at most kMaxColumns characters a line and kMaxLines lines
//   headers       #pragma once first, and a comment before the first class
//   scripts       executable, with a first line that says who runs them; shell scripts stop at the
//   first failure
std::vector<Complaint> check_style(const SourceFile& file);

inline constexpr size_t kMaxColumns = 120;
inline constexpr size_t kMaxLines = 600;

// Links [text](target) of a Markdown file, and the `paths` it quotes below the project's own
// folders, must lead somewhere. Targets are taken from the file's folder, quoted paths from the
// root; `exists` is asked for paths from the root.
std::vector<Complaint> check_links(const SourceFile& file,
                                   const std::function<bool(const std::string&)>& exists);

}  // namespace trireme::tree
