#include "topology/hostlist.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <unordered_set>

#include <fmt/format.h>

#include "topology/base/error.h"
#include "topology/base/toml_writer.h"

namespace trireme {
namespace {

constexpr size_t kMostHosts = 1'000'000;
// Numbers in ranges stay far from overflow; longer runs of digits are part of the name.
constexpr size_t kMostDigits = 9;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_character(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
         c == '.';
}

// 0: the number is written as it is; otherwise it is padded with zeros to this many digits.
size_t padding_of(std::string_view digits) {
  return digits.size() > 1 && digits.front() == '0' ? digits.size() : 0;
}

std::string number_text(int64_t number, size_t padding) {
  auto digits = std::to_string(number);
  if (digits.size() < padding) digits.insert(0, padding - digits.size(), '0');
  return digits;
}

// Reads a host list from left to right. A term is a name whose brackets each stand for several
// texts; the hosts of a term are all combinations, the last bracket varying fastest.
class Expander {
 public:
  explicit Expander(std::string_view list) : list_(list) {}

  std::vector<std::string> expand() {
    do {
      skip_blanks();
      expand_term();
      skip_blanks();
    } while (accept(','));
    if (at_ < list_.size())
      throw wrong(fmt::format("found {}, expected a comma or the end", here()));
    reject_duplicates();
    return std::move(hosts_);
  }

 private:
  void expand_term() {
    std::vector<std::string> names = {""};
    const size_t begin = at_;
    while (at_ < list_.size() && (is_name_character(list_[at_]) || list_[at_] == '[')) {
      if (accept('[')) {
        names = combine(names, parse_bracket());
      } else {
        const char c = list_[at_++];
        for (auto& name : names) name += c;
      }
    }
    if (at_ == begin) {
      throw wrong(at_ < list_.size() ? fmt::format("found {}, expected a host name", here())
                                     : std::string("found nothing, expected a host name"));
    }
    // A program that is given such a name would take it for an option.
    if (names.front().front() == '-')
      throw wrong("found a host name that starts with '-', expected a letter or digit");
    if (hosts_.size() + names.size() > kMostHosts) throw too_many();
    std::move(names.begin(), names.end(), std::back_inserter(hosts_));
  }

  // "001-128,200]": the texts that a bracket stands for, the opening one already read.
  std::vector<std::string> parse_bracket() {
    std::vector<std::string> texts;
    do {
      parse_range(texts);
    } while (accept(','));
    if (!accept(']')) throw wrong("found no ] here, expected it after a number or range");
    return texts;
  }

  void parse_range(std::vector<std::string>& texts) {
    const size_t begin = at_;
    const auto low = take_digits();
    const auto high = accept('-') ? take_digits() : low;
    const auto range = list_.substr(begin, at_ - begin);
    const int64_t first = std::stoll(std::string(low));
    const int64_t last = std::stoll(std::string(high));
    if (last < first)
      throw wrong(
          fmt::format("found the descending range {}, expected the lower end first", range));
    const auto padding = padding_of(low);
    if (padding_of(high) != 0 && high.size() != low.size()) {
      throw wrong(fmt::format(
          "found the range {}, whose ends are padded to different widths, expected equal ones",
          range));
    }
    if (texts.size() + static_cast<size_t>(last - first) + 1 > kMostHosts) throw too_many();
    for (int64_t number = first; number <= last; ++number)
      texts.push_back(number_text(number, padding));
  }

  std::string_view take_digits() {
    const size_t begin = at_;
    while (at_ < list_.size() && is_digit(list_[at_])) ++at_;
    const auto digits = list_.substr(begin, at_ - begin);
    if (digits.empty() || digits.size() > kMostDigits) {
      throw wrong(
          fmt::format("found {} digits, expected a number of 1 to {}", digits.size(), kMostDigits));
    }
    return digits;
  }

  std::vector<std::string> combine(const std::vector<std::string>& names,
                                   const std::vector<std::string>& texts) const {
    if (names.size() * texts.size() > kMostHosts) throw too_many();
    std::vector<std::string> combined;
    combined.reserve(names.size() * texts.size());
    for (const auto& name : names) {
      for (const auto& text : texts) combined.push_back(name + text);
    }
    return combined;
  }

  void reject_duplicates() const {
    std::unordered_set<std::string_view> seen;
    seen.reserve(hosts_.size());
    for (const auto& host : hosts_) {
      if (!seen.insert(host).second) {
        throw Error(
            ErrorKind::bad_input,
            fmt::format("host list {}: found {} twice, expected each host once", quoted(), host));
      }
    }
  }

  bool accept(char c) {
    if (at_ >= list_.size() || list_[at_] != c) return false;
    ++at_;
    return true;
  }

  void skip_blanks() {
    while (accept(' ')) {
    }
  }

  std::string quoted() const { return short_toml_string(list_); }

  // What stands here, one character of any text.
  std::string here() const {
    size_t end = at_ + 1;
    while (end < list_.size() && (static_cast<unsigned char>(list_[end]) & 0xc0) == 0x80) ++end;
    const std::string text = toml_string(list_.substr(at_, end - at_));
    return "'" + text.substr(1, text.size() - 2) + "'";
  }

  Error wrong(const std::string& what) const {
    return Error(ErrorKind::bad_input,
                 fmt::format("host list {}: {} (at character {})", quoted(), what, at_ + 1));
  }

  Error too_many() const {
    return Error(ErrorKind::bad_input,
                 fmt::format("host list {}: found more than {} hosts, expected no more", quoted(),
                             kMostHosts));
  }

  std::string_view list_;
  size_t at_ = 0;
  std::vector<std::string> hosts_;
};

// A number in a host name: name = before + digits + after.
struct Split {
  std::string_view before;
  std::string_view digits;
  std::string_view after;
};

std::vector<Split> splits_of(std::string_view host) {
  std::vector<Split> splits;
  for (size_t begin = 0; begin < host.size();) {
    size_t end = begin;
    while (end < host.size() && is_digit(host[end])) ++end;
    if (end > begin && end - begin <= kMostDigits) {
      splits.push_back({host.substr(0, begin), host.substr(begin, end - begin), host.substr(end)});
    }
    begin = end + 1;
  }
  return splits;
}

// The number in which two names differ, as split in the first one, if they differ in exactly that.
std::optional<Split> varying_number(std::string_view host, std::string_view next) {
  for (const auto& split : splits_of(host)) {
    for (const auto& other : splits_of(next)) {
      if (split.before == other.before && split.after == other.after) return split;
    }
  }
  return std::nullopt;
}

// The digits of `host` at the place that `split` marks, if the rest of the name is the same.
std::optional<std::string_view> digits_at(const Split& split, std::string_view host) {
  for (const auto& own : splits_of(host)) {
    if (own.before == split.before && own.after == split.after) return own.digits;
  }
  return std::nullopt;
}

// "001-128,200"
std::string ranges_text(const std::vector<std::string_view>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    const auto padding = padding_of(numbers[i]);
    int64_t value = std::stoll(std::string(numbers[i]));
    size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == number_text(value + 1, padding)) {
      ++end;
      ++value;
    }
    if (!text.empty()) text += ',';
    text += numbers[i];
    if (end - i > 1) text += fmt::format("-{}", numbers[end - 1]);
    i = end;
  }
  return text;
}

}  // namespace

std::vector<std::string> expand_hosts(std::string_view list) {
  return Expander(list).expand();
}

std::string compress_hosts(const std::vector<std::string>& hosts) {
  std::string text;
  // Taking as many hosts into each name as fit gives the fewest names: any part of what one name
  // covers is a name, too.
  for (size_t i = 0; i < hosts.size();) {
    if (!text.empty()) text += ',';
    const auto split = i + 1 < hosts.size() ? varying_number(hosts[i], hosts[i + 1]) : std::nullopt;
    if (!split) {
      text += hosts[i++];
      continue;
    }
    std::vector<std::string_view> numbers;
    for (; i < hosts.size(); ++i) {
      const auto digits = digits_at(*split, hosts[i]);
      if (!digits) break;
      numbers.push_back(*digits);
    }
    text += fmt::format("{}[{}]{}", split->before, ranges_text(numbers), split->after);
  }
  return text;
}

}  // namespace trireme
