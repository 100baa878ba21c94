#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "planner/plan/schedule.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr std::string_view kOverlapSuffix = ")OVERLAP_F_B";
// Far above any real pipeline; keeps a hostile cell from asking for a table of two billion stages.
constexpr int kLargestIndex = 999'999;

std::optional<OpKind> kind_of(char letter) {
  switch (letter) {
    case 'F':
      return OpKind::forward;
    case 'B':
      return OpKind::backward;
    case 'I':
      return OpKind::backward_input;
    case 'W':
      return OpKind::backward_weight;
    default:
      return std::nullopt;
  }
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// A cell without surrounding blanks and quotes: Python's csv module writes a lone empty cell as "".
std::string_view bare(std::string_view cell) {
  cell = trim(cell);
  if (cell.size() >= 2 && cell.front() == '"' && cell.back() == '"') {
    cell = trim(cell.substr(1, cell.size() - 2));
  }
  return cell;
}

// Takes a number off the front of `text`.
std::optional<int> take_index(std::string_view& text) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  int value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || value > kLargestIndex) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

std::optional<Op> parse_op(std::string_view word) {
  Op op;
  const auto stage = take_index(word);
  if (!stage || word.empty()) return std::nullopt;
  const auto kind = kind_of(word.front());
  word.remove_prefix(1);
  const auto micro_batch = take_index(word);
  if (!kind || !micro_batch || !word.empty()) return std::nullopt;
  op.kind = *kind;
  op.stage = *stage;
  op.micro_batch = *micro_batch;
  return op;
}

// "(0F7;7B3)OVERLAP_F_B" as its two ops.
std::optional<std::pair<Op, Op>> parse_pair(std::string_view word) {
  if (word.front() != '(' || !word.ends_with(kOverlapSuffix)) return std::nullopt;
  word = word.substr(1, word.size() - 1 - kOverlapSuffix.size());
  const auto semicolon = word.find(';');
  if (semicolon == std::string_view::npos) return std::nullopt;
  auto first = parse_op(trim(word.substr(0, semicolon)));
  const auto second = parse_op(trim(word.substr(semicolon + 1)));
  if (!first || !second) return std::nullopt;
  first->overlaps_next = true;
  return std::pair(*first, *second);
}

// "0SEND_F3", "1UNSHARD": what PyTorch's format "compute_comms" has besides the ops.
bool is_communication(std::string_view cell) {
  if (!take_index(cell)) return false;
  for (const std::string_view action :
       {"SEND_F", "SEND_B", "RECV_F", "RECV_B", "UNSHARD", "RESHARD", "REDUCE_GRAD"}) {
    if (cell.starts_with(action)) return true;
  }
  return false;
}

Error wrong_cell(const std::string& where, int column, std::string_view cell) {
  constexpr size_t kLongestQuote = 40;
  std::string quote;
  for (const char c : cell.substr(0, kLongestQuote)) {
    quote += c >= ' ' && c != 127 ? c : '?';  // nothing that a terminal would act on
  }
  if (cell.size() > kLongestQuote) quote += "...";
  if (is_communication(cell)) {
    return Error(ErrorKind::bad_input,
                 fmt::format("{}: cell {}: found \"{}\", which is communication; expected "
                             "PyTorch's format \"compute_only\", from which sends, receives and "
                             "gathered parameters follow",
                             where, column, quote));
  }
  return Error(
      ErrorKind::bad_input,
      fmt::format("{}: cell {}: found \"{}\", expected stage, one of F B I W and micro-batch "
                  "(up to {}) as in 0F3, a pair as in (0F7;7B3)OVERLAP_F_B, or nothing",
                  where, column, quote, kLargestIndex));
}

// Calls `visit(column, ops)` for every cell that is not a wait; columns count from 1.
template <class Visit>
void for_each_cell(std::string_view row, const std::string& where, Visit visit) {
  int column = 0;
  while (true) {
    const auto comma = row.find(',');
    const auto cell = bare(row.substr(0, comma));
    ++column;
    if (const auto op = cell.empty() ? std::nullopt : parse_op(cell)) {
      visit(column, *op);
    } else if (const auto pair = cell.empty() ? std::nullopt : parse_pair(cell)) {
      visit(column, pair->first);
      visit(column, pair->second);
    } else if (!cell.empty()) {
      throw wrong_cell(where, column, cell);
    }
    if (comma == std::string_view::npos) return;
    row.remove_prefix(comma + 1);
  }
}

std::vector<std::string_view> lines_of(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // some spreadsheets put it first
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto newline = text.find('\n');
    lines.push_back(text.substr(0, newline));
    if (newline == std::string_view::npos) break;
    text.remove_prefix(newline + 1);
  }
  return lines;
}

// The places of all stages from the row that each stands in; a rank's stages are its chunks in
// ascending order.
std::vector<StagePlace> places_from(const std::map<int, int>& rank_of_stage, size_t ranks,
                                    const std::string& name) {
  std::vector<StagePlace> places;
  std::vector<int> chunks(ranks, 0);
  for (const auto& [stage, rank] : rank_of_stage) {
    const int expected = static_cast<int>(places.size());
    if (stage != expected) {
      throw Error(
          ErrorKind::bad_input,
          fmt::format("{}: stage {} is in no row, but stage {} is; stages are numbered from 0 "
                      "without gaps",
                      name, expected, stage));
    }
    places.push_back({rank, chunks[static_cast<size_t>(rank)]++});
  }
  for (size_t rank = 1; rank < ranks; ++rank) {
    if (chunks[rank] == chunks[0]) continue;
    throw Error(
        ErrorKind::bad_input,
        fmt::format(
            "{}:{}: found {} stages in this row and {} in row 1, expected as many in every row",
            name, rank + 1, chunks[rank], chunks[0]));
  }
  return places;
}

}  // namespace

std::string row_to_csv(const std::vector<Op>& row) {
  std::string text;
  for (size_t i = 0; i < row.size(); ++i) {
    if (i != 0) text += ',';
    if (!row[i].overlaps_next) {
      text += to_string(row[i]);
      continue;
    }
    TRIREME_CHECK(i + 1 < row.size() && !row[i + 1].overlaps_next);
    text += fmt::format("({};{}{}", to_string(row[i]), to_string(row[i + 1]), kOverlapSuffix);
    ++i;
  }
  return text;
}

std::vector<Op> parse_csv_row(std::string_view row, const std::string& where) {
  std::vector<Op> ops;
  for_each_cell(row, where, [&](int, const Op& op) { ops.push_back(op); });
  return ops;
}

std::string to_csv(const Schedule& schedule) {
  std::string text;
  for (const auto& row : schedule.ranks) text += row_to_csv(row) + '\n';
  return text;
}

Schedule parse_schedule_csv(std::string_view text, const std::string& name) {
  Schedule schedule;
  schedule.name = name;
  std::map<int, int> rank_of_stage;
  for (const auto line : lines_of(text)) {
    const int rank = schedule.pipeline();
    const auto where = fmt::format("{}:{}", name, rank + 1);
    auto& row = schedule.ranks.emplace_back();
    for_each_cell(line, where, [&](int column, const Op& op) {
      const int owner = rank_of_stage.emplace(op.stage, rank).first->second;
      if (owner != rank) {
        throw Error(
            ErrorKind::bad_input,
            fmt::format(
                "{}: cell {}: found stage {}, which row {} has, expected each stage in one row",
                where, column, op.stage, owner + 1));
      }
      schedule.micro_batches = std::max(schedule.micro_batches, op.micro_batch + 1);
      row.push_back(op);
    });
  }
  if (rank_of_stage.empty()) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: found no operation, expected a row of cells as in "
                            "0F0,0F1,0B0,0B1 for each pipeline rank",
                            name));
  }
  schedule.stages = places_from(rank_of_stage, schedule.ranks.size(), name);
  return schedule;
}

}  // namespace trireme
