#include "topology/base/toml_writer.h"

#include <fmt/format.h>

namespace trireme {

std::string toml_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\u{:04X}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string short_toml_string(std::string_view text) {
  constexpr size_t kLongest = 60;
  if (text.size() <= kLongest) return toml_string(text);
  size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;  // not inside a UTF-8 sequence
  return toml_string(text.substr(0, end)) + "...";
}

std::string toml_number(double value) {
  auto text = fmt::format("{}", value);
  // "3" would read back as an integer; "nan" and "inf" are floats as they stand.
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

}  // namespace trireme
