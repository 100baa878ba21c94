#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "topology/base/error.h"

namespace toml {
inline namespace v3 {
class key;
class node;
class table;
}  // namespace v3
}  // namespace toml

namespace trireme {

// A table of a TOML file, read strictly: each key is asked for with the type and range that it must
// have, and `finish` rejects what nobody asked for, naming the nearest known key. Every complaint
// is one Error(bad_input) of the form
//   cluster.toml:4:11: nodes[0].devices: found "eight", expected an integer from 1 to 4096
// A TomlTable points into its TomlFile, which must outlive it. Not thread-safe.
class TomlTable {
 public:
  bool has(std::string_view key) const;

  std::string string(std::string_view key);
  std::optional<std::string> optional_string(std::string_view key);
  std::string string_or(std::string_view key, std::string fallback);
  // The text, which is that of the key: it will be shown on a terminal, which would do what a
  // control character says, so these are refused.
  std::string printable(std::string_view key, std::string text) const;
  // One of `allowed`; the complaint lists them.
  std::string choice(std::string_view key, const std::vector<std::string>& allowed);
  std::optional<std::string> optional_choice(std::string_view key,
                                             const std::vector<std::string>& allowed);

  // Integers and numbers lie in [low, high], both included. `number` accepts an integer too.
  int64_t integer(std::string_view key, int64_t low, int64_t high);
  std::optional<int64_t> optional_integer(std::string_view key, int64_t low, int64_t high);
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high);
  double number(std::string_view key, double low, double high);
  std::optional<double> optional_number(std::string_view key, double low, double high);
  double number_or(std::string_view key, double fallback, double low, double high);
  bool boolean(std::string_view key);
  bool boolean_or(std::string_view key, bool fallback);
  std::optional<bool> optional_boolean(std::string_view key);

  std::vector<int64_t> integers(std::string_view key);
  std::vector<double> numbers(std::string_view key);
  std::vector<std::string> strings(std::string_view key);

  // The value's type, for keys that accept several: string, integer, number, boolean, table, array,
  // date, or none.
  std::string_view type_of(std::string_view key);
  std::optional<TomlTable> optional_table(std::string_view key);
  TomlTable table(std::string_view key);
  // An array of tables ([[key]]); empty when the key is absent.
  std::vector<TomlTable> tables(std::string_view key);

  // Rejects keys that were never asked for. Call once per table, after the last key.
  void finish() const;

  // Where a value stands, as complaints say it: "cluster.toml:4:11".
  std::string place(std::string_view key) const;
  // An Error that points at `key` of this table (or at the table when the key is absent).
  [[nodiscard]] Error error(std::string_view key, const std::string& found_and_expected) const;
  // The same for a value that is not of the expected kind: "found 7, expected ...", or "missing,
  // expected ...".
  [[nodiscard]] Error unexpected(std::string_view key, const std::string& expected) const;

 private:
  friend class TomlFile;
  TomlTable(const toml::table* table, std::string file, std::string path);
  const toml::node* find(std::string_view key);
  // The complaint points at `node`: the value of `key` or an item of it.
  Error mismatch(std::string_view key, const toml::node& node, const std::string& expected) const;
  std::string full_name(std::string_view key) const;
  const toml::key* misspelt(std::string_view key) const;

  const toml::table* table_;
  std::string file_;
  std::string path_;
  std::set<std::string, std::less<>> asked_;
};

// A parsed TOML file. Throws Error(bad_input) when the file cannot be read or is not TOML.
class TomlFile {
 public:
  static TomlFile read(const std::string& path);
  // `name` stands for the file in messages.
  static TomlFile parse(std::string_view text, const std::string& name);
  TomlFile(TomlFile&&) noexcept;
  TomlFile& operator=(TomlFile&&) noexcept;
  ~TomlFile();

  TomlTable root() const;

  // Sets a key as if the file said so; complaints about it name no line. `table` is the dotted path
  // of its table, an array's by index, as in "nodes[0].device", and is made anew where it is
  // something else (a TomlTable of what it was is no longer valid); "" is the root. `text` is a
  // TOML value, or a string that lacks its quotes.
  void set(const std::string& table, std::string_view key, std::string_view text);
  // As if the file did not have the key, which it may not have.
  void remove(const std::string& table, std::string_view key);

 private:
  TomlFile(std::unique_ptr<toml::table> table, std::string name);
  std::unique_ptr<toml::table> table_;
  std::string name_;
};

// The candidate that is closest to `word` by edit distance, letter case aside, if any is close
// enough to be what was meant: a third of the letters wrong, or only letters left out, as in
// "A100-80GB".
std::optional<std::string> nearest_name(std::string_view word,
                                        const std::vector<std::string>& candidates);

// The whole of a file. Throws Error(bad_input) naming it when it cannot be read.
std::string read_text_file(const std::string& path);

}  // namespace trireme
