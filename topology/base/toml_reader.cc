#include "topology/base/toml_reader.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>

#include <fmt/format.h>

#include "topology/base/toml_writer.h"

// toml++ 3.3 asserts that a key follows '[', and in optimized builds lets the compiler assume it,
// although "[=]" may stand in any file. Without either its parser goes on to report the character,
// with its place.
#undef NDEBUG
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

namespace trireme {
namespace {

// A value as a message shows it: one short line, whatever the file holds.
std::string quote(std::string_view text) {
  constexpr size_t kLongest = 60;
  if (text.size() <= kLongest) return toml_string(text);
  size_t end = kLongest;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;  // not inside a UTF-8 sequence
  return toml_string(text.substr(0, end)) + "...";
}

std::string describe(const toml::node& node) {
  if (const auto* s = node.as_string()) return quote(s->get());
  if (const auto* i = node.as_integer()) return fmt::format("{}", i->get());
  if (const auto* d = node.as_floating_point()) return fmt::format("{}", d->get());
  if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
  if (node.is_table()) return "a table";
  if (node.is_array()) return "an array";
  return "a date or time";
}

std::string position(const std::string& file, const toml::source_region& where) {
  if (where.begin.line == 0) return file;
  return fmt::format("{}:{}:{}", file, where.begin.line, where.begin.column);
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Levenshtein's distance, one row of the table at a time.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
}

// Same first letter, and every letter of `word` stands in `name` in the same order.
bool abbreviates(std::string_view word, std::string_view name) {
  if (word.size() < 2 || name.empty() || word.front() != name.front()) return false;
  size_t matched = 0;
  for (const char c : name) matched += matched < word.size() && word[matched] == c ? 1 : 0;
  return matched == word.size();
}

std::string integer_range(int64_t low, int64_t high) {
  if (high == INT64_MAX) return fmt::format("an integer of at least {}", low);
  return fmt::format("an integer from {} to {}", low, high);
}

std::string number_range(double low, double high) {
  if (low < -1e300 && high > 1e300) return "a finite number";
  if (high > 1e300) return fmt::format("a number of at least {}", low);
  return fmt::format("a number from {} to {}", low, high);
}

}  // namespace

TomlTable::TomlTable(const toml::table* table, std::string file, std::string path)
    : table_(table), file_(std::move(file)), path_(std::move(path)) {}

std::string TomlTable::full_name(std::string_view key) const {
  if (path_.empty()) return std::string(key);
  return key.empty() ? path_ : fmt::format("{}.{}", path_, key);
}

bool TomlTable::has(std::string_view key) const {
  return table_->contains(key);
}

const toml::node* TomlTable::find(std::string_view key) {
  asked_.emplace(key);
  return table_->get(key);
}

std::string_view TomlTable::type_of(std::string_view key) {
  const auto* node = find(key);
  if (node == nullptr) return "none";
  if (node->is_string()) return "string";
  if (node->is_integer()) return "integer";
  if (node->is_floating_point()) return "number";
  if (node->is_boolean()) return "boolean";
  if (node->is_table()) return "table";
  if (node->is_array()) return "array";
  return "date";
}

Error TomlTable::error(std::string_view key, const std::string& found_and_expected) const {
  const auto* node = table_->get(key);
  const auto& where = node != nullptr ? node->source() : table_->source();
  return Error(ErrorKind::bad_input, fmt::format("{}: {}: {}", position(file_, where),
                                                 full_name(key), found_and_expected));
}

Error TomlTable::mismatch(std::string_view key, const toml::node& node,
                          const std::string& expected) const {
  return Error(ErrorKind::bad_input,
               fmt::format("{}: {}: found {}, expected {}", position(file_, node.source()),
                           full_name(key), describe(node), expected));
}

Error TomlTable::unexpected(std::string_view key, const std::string& expected) const {
  if (const auto* node = table_->get(key)) return mismatch(key, *node, expected);
  return error(key, fmt::format("missing, expected {}", expected));
}

std::optional<std::string> TomlTable::optional_string(std::string_view key) {
  const auto* node = find(key);
  if (node == nullptr) return std::nullopt;
  if (const auto* s = node->as_string()) return s->get();
  throw mismatch(key, *node, "a string");
}

std::string TomlTable::string(std::string_view key) {
  if (auto value = optional_string(key)) return *value;
  throw unexpected(key, "a string");
}

std::string TomlTable::string_or(std::string_view key, std::string fallback) {
  auto value = optional_string(key);
  return value ? *value : std::move(fallback);
}

std::optional<std::string> TomlTable::optional_choice(std::string_view key,
                                                      const std::vector<std::string>& allowed) {
  const auto* node = find(key);
  if (node == nullptr) return std::nullopt;
  const auto expected = fmt::format("one of {}", fmt::join(allowed, ", "));
  const auto* s = node->as_string();
  if (s == nullptr) throw mismatch(key, *node, expected);
  if (std::find(allowed.begin(), allowed.end(), s->get()) != allowed.end()) return s->get();
  const auto nearest = nearest_name(s->get(), allowed);
  throw mismatch(key, *node,
                 nearest ? fmt::format("{} (did you mean \"{}\"?)", expected, *nearest) : expected);
}

std::string TomlTable::choice(std::string_view key, const std::vector<std::string>& allowed) {
  if (auto value = optional_choice(key, allowed)) return *value;
  throw unexpected(key, fmt::format("one of {}", fmt::join(allowed, ", ")));
}

std::optional<int64_t> TomlTable::optional_integer(std::string_view key, int64_t low,
                                                   int64_t high) {
  const auto* node = find(key);
  if (node == nullptr) return std::nullopt;
  const auto* i = node->as_integer();
  if (i == nullptr || i->get() < low || i->get() > high) {
    throw mismatch(key, *node, integer_range(low, high));
  }
  return i->get();
}

int64_t TomlTable::integer(std::string_view key, int64_t low, int64_t high) {
  if (auto value = optional_integer(key, low, high)) return *value;
  throw unexpected(key, integer_range(low, high));
}

int64_t TomlTable::integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high) {
  return optional_integer(key, low, high).value_or(fallback);
}

std::optional<double> TomlTable::optional_number(std::string_view key, double low, double high) {
  const auto* node = find(key);
  if (node == nullptr) return std::nullopt;
  const auto value = node->value<double>();
  // Written so that nan, which compares false with everything, is refused too.
  if (!node->is_number() || !value || !(*value >= low && *value <= high)) {
    throw mismatch(key, *node, number_range(low, high));
  }
  return value;
}

double TomlTable::number(std::string_view key, double low, double high) {
  if (auto value = optional_number(key, low, high)) return *value;
  throw unexpected(key, number_range(low, high));
}

double TomlTable::number_or(std::string_view key, double fallback, double low, double high) {
  return optional_number(key, low, high).value_or(fallback);
}

std::optional<bool> TomlTable::optional_boolean(std::string_view key) {
  const auto* node = find(key);
  if (node == nullptr) return std::nullopt;
  if (const auto* b = node->as_boolean()) return b->get();
  throw mismatch(key, *node, "true or false");
}

bool TomlTable::boolean(std::string_view key) {
  if (const auto value = optional_boolean(key)) return *value;
  throw unexpected(key, "true or false");
}

bool TomlTable::boolean_or(std::string_view key, bool fallback) {
  return optional_boolean(key).value_or(fallback);
}

std::vector<int64_t> TomlTable::integers(std::string_view key) {
  const auto* node = find(key);
  const auto* array = node == nullptr ? nullptr : node->as_array();
  if (array == nullptr) throw unexpected(key, "an array of integers");
  std::vector<int64_t> values;
  for (const auto& item : *array) {
    if (!item.is_integer()) throw mismatch(key, item, "an integer in the array");
    values.push_back(item.as_integer()->get());
  }
  return values;
}

std::vector<double> TomlTable::numbers(std::string_view key) {
  const auto* node = find(key);
  const auto* array = node == nullptr ? nullptr : node->as_array();
  if (array == nullptr) throw unexpected(key, "an array of numbers");
  std::vector<double> values;
  for (const auto& item : *array) {
    if (!item.is_number()) throw mismatch(key, item, "a number in the array");
    values.push_back(*item.value<double>());
  }
  return values;
}

std::vector<std::string> TomlTable::strings(std::string_view key) {
  const auto* node = find(key);
  const auto* array = node == nullptr ? nullptr : node->as_array();
  if (array == nullptr) throw unexpected(key, "an array of strings");
  std::vector<std::string> values;
  for (const auto& item : *array) {
    if (!item.is_string()) throw mismatch(key, item, "a string in the array");
    values.push_back(item.as_string()->get());
  }
  return values;
}

std::optional<TomlTable> TomlTable::optional_table(std::string_view key) {
  const auto* node = find(key);
  if (node == nullptr) return std::nullopt;
  const auto* table = node->as_table();
  if (table == nullptr) throw mismatch(key, *node, "a table");
  return TomlTable(table, file_, full_name(key));
}

TomlTable TomlTable::table(std::string_view key) {
  if (auto value = optional_table(key)) return *value;
  throw unexpected(key, fmt::format("a table [{}]", full_name(key)));
}

std::vector<TomlTable> TomlTable::tables(std::string_view key) {
  const auto* node = find(key);
  if (node == nullptr) return {};
  const auto* array = node->as_array();
  if (array == nullptr) throw mismatch(key, *node, fmt::format("tables [[{}]]", full_name(key)));
  std::vector<TomlTable> tables;
  for (const auto& item : *array) {
    if (!item.is_table()) throw mismatch(key, item, "a table");
    tables.push_back(
        TomlTable(item.as_table(), file_, fmt::format("{}[{}]", full_name(key), tables.size())));
  }
  return tables;
}

void TomlTable::finish() const {
  for (const auto& [key, node] : *table_) {
    if (asked_.find(key.str()) != asked_.end()) continue;
    const std::vector<std::string> known(asked_.begin(), asked_.end());
    const auto nearest = nearest_name(key.str(), known);
    const auto hint = nearest ? fmt::format("did you mean \"{}\"?", *nearest)
                              : fmt::format("known keys are {}", fmt::join(known, ", "));
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: {}: found an unknown key; {}", position(file_, key.source()),
                            full_name(key.str()), hint));
  }
}

TomlFile::TomlFile(std::unique_ptr<toml::table> table, std::string name)
    : table_(std::move(table)), name_(std::move(name)) {}
TomlFile::TomlFile(TomlFile&&) noexcept = default;
TomlFile& TomlFile::operator=(TomlFile&&) noexcept = default;
TomlFile::~TomlFile() = default;

TomlFile TomlFile::parse(std::string_view text, const std::string& name) {
  try {
    return TomlFile(std::make_unique<toml::table>(toml::parse(text, name)), name);
  } catch (const toml::parse_error& e) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: not valid TOML: {}", position(name, e.source()), e.description()));
  }
}

TomlFile TomlFile::read(const std::string& path) {
  return parse(read_text_file(path), path);
}

TomlTable TomlFile::root() const {
  return TomlTable(table_.get(), name_, "");
}

std::optional<std::string> nearest_name(std::string_view word,
                                        const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  size_t best_distance = SIZE_MAX;
  const auto lower_word = lower_case(word);
  for (const auto& candidate : candidates) {
    const auto lower = lower_case(candidate);
    const auto distance = edit_distance(lower_word, lower);
    const bool close =
        distance <= std::max<size_t>(1, word.size() / 3) || abbreviates(lower_word, lower);
    if (!close || distance >= best_distance) continue;
    best_distance = distance;
    best = candidate;
  }
  return best;
}

std::string read_text_file(const std::string& path) {
  const auto unreadable = [&path](const std::string& why) {
    return Error(ErrorKind::bad_input, fmt::format("{}: cannot be read: {}", path, why));
  };
  std::error_code error;
  // Opening a directory succeeds and reading it yields nothing, so it is asked for.
  if (std::filesystem::is_directory(path, error)) throw unreadable("it is a directory");
  std::ifstream in(path, std::ios::binary);
  if (!in) throw unreadable(std::strerror(errno));
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) throw unreadable("reading failed");
  return text;
}

}  // namespace trireme
