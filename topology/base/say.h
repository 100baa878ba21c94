#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

namespace trireme {

// Writes what is said to a person, most of it to stderr. Whoever listened may have left, or the
// disk be full: then it is lost, as that must not end what goes on. Results are no such thing.
template <class... Values>
void say(std::FILE* out, fmt::format_string<Values...> format, Values&&... values) {
  const std::string text = fmt::format(format, std::forward<Values>(values)...);
  std::fwrite(text.data(), 1, text.size(), out);
}

// The same where nothing may wait for who listens, such as a terminal that was stopped or a pager:
// what cannot be written at once is lost.
void say_in_passing(std::FILE* out, std::string_view text);

}  // namespace trireme
