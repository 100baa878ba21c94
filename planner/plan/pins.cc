#include <fmt/format.h>

#include <charconv>
#include <map>

#include "planner/plan/job.h"
#include "planner/plan/limits.h"

namespace trireme {
namespace {

Error wrong_value(std::string_view key, std::string_view value, const std::string& expected) {
  return Error(ErrorKind::bad_input,
               fmt::format("--pin {}: found \"{}\", expected {} or auto", key, value, expected));
}

int parse_integer(std::string_view key, std::string_view text, int low, int high) {
  int value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    throw wrong_value(key, text, fmt::format("an integer from {} to {}", low, high));
  }
  return value;
}

std::string parse_choice(std::string_view key, std::string_view text,
                         const std::vector<std::string>& allowed) {
  for (const auto& name : allowed) {
    if (name == text) return name;
  }
  const auto nearest = nearest_name(text, allowed);
  throw wrong_value(key, text,
                    fmt::format("one of {}{}", fmt::join(allowed, ", "),
                                nearest ? fmt::format(" (did you mean {}?)", *nearest) : ""));
}

// Sets `pin` from its text; "auto" leaves the choice to the planner again.
template <class Value, class Parse>
void assign(std::optional<Value>& pin, std::string_view text, Parse parse) {
  pin = text == "auto" ? std::nullopt : std::optional<Value>(parse(text));
}

}  // namespace

const std::vector<std::string>& pin_names() {
  static const std::vector<std::string> names = {
      "tensor",      "pipeline",          "data",      "chunks",          "schedule",
      "micro_batch", "sequence_parallel", "recompute", "recompute_ranks", "optimizer_sharding",
      "even_cut"};
  return names;
}

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names = {
      "naive",       "gpipe",         "pipedream", "1f1b",       "eager-1f1b",
      "interleaved", "breadth-first", "zb-h1",     "zb-h2",      "interleaved-zb",
      "zb-v",        "v-half",        "v-min",     "dualpipe-v", "forward-only"};
  return names;
}

void set_pin(Pins& pins, std::string_view key_and_value) {
  const auto equals = key_and_value.find('=');
  if (equals == std::string_view::npos) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("--pin: found \"{}\", expected key=value, as in tensor=2", key_and_value));
  }
  const auto key = key_and_value.substr(0, equals);
  const auto text = key_and_value.substr(equals + 1);
  pins.places.by_key.erase(std::string(key));
  const auto degree = [&](int high) {
    return [key, high](std::string_view value) { return parse_integer(key, value, 1, high); };
  };
  if (key == "tensor") return assign(pins.tensor, text, degree(limits::kDegree));
  if (key == "pipeline") return assign(pins.pipeline, text, degree(limits::kDegree));
  if (key == "data") return assign(pins.data, text, degree(limits::kDegree));
  if (key == "chunks") return assign(pins.chunks, text, degree(limits::kChunks));
  if (key == "micro_batch") return assign(pins.micro_batch, text, degree(limits::kMicroBatch));
  if (key == "optimizer_sharding") {
    return assign(pins.optimizer_sharding, text,
                  [&](std::string_view value) { return parse_integer(key, value, 0, 1); });
  }
  if (key == "recompute_ranks") {
    return assign(pins.recompute_ranks, text, [&](std::string_view value) {
      return parse_integer(key, value, 0, limits::kDegree);
    });
  }
  if (key == "schedule") {
    return assign(pins.schedule, text, [&](std::string_view value) {
      return parse_choice(key, value, schedule_names());
    });
  }
  const auto boolean = [&](std::string_view value) {
    return parse_choice(key, value, {"true", "false"}) == "true";
  };
  if (key == "sequence_parallel") return assign(pins.sequence_parallel, text, boolean);
  if (key == "even_cut") return assign(pins.even_cut, text, boolean);
  if (key == "recompute") {
    return assign(pins.recompute, text, [&](std::string_view value) {
      return *recompute_named(parse_choice(key, value, recompute_names()));
    });
  }
  const auto nearest = nearest_name(key, pin_names());
  throw Error(
      ErrorKind::bad_input,
      fmt::format("--pin: found an unknown key \"{}\"; {}", key,
                  nearest ? fmt::format("did you mean \"{}\"?", *nearest)
                          : fmt::format("known keys are {}", fmt::join(pin_names(), ", "))));
}

std::string name_of_pin(const Pins& pins, std::string_view key, const std::string& value) {
  const auto place = pins.places.by_key.find(key);
  return fmt::format("{}={}{}", key, value,
                     place == pins.places.by_key.end() ? "" : fmt::format(" ({})", place->second));
}

void set_pins(Pins& pins, const std::vector<std::string>& keys_and_values) {
  std::map<std::string, std::string> before;  // by key
  for (const std::string& pin : keys_and_values) {
    set_pin(pins, pin);
    const auto [first, is_new] = before.emplace(pin.substr(0, pin.find('=')), pin);
    if (!is_new && first->second != pin) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("--pin {} contradicts --pin {}", pin, first->second));
    }
  }
}

}  // namespace trireme
