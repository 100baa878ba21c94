#include "launcher/progress.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "launcher/clock.h"
#include "topology/base/say.h"

namespace trireme {
namespace {

constexpr double kTerminalPause = 0.1;
constexpr double kLinePause = 2;

std::string short_rate(double per_second) {
  if (per_second >= 1e6) return fmt::format("{:.2f}M", per_second / 1e6);
  if (per_second >= 1e4) return fmt::format("{:.1f}k", per_second / 1e3);
  return fmt::format("{:.0f}", per_second);
}

}  // namespace

std::string short_duration(double seconds) {
  const long whole = std::lround(seconds);
  if (whole >= 3600) return fmt::format("{}h {:02}m", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

std::string progress_line(const nlohmann::json& metrics, int total_steps, double seconds_left) {
  const auto number = [&](const char* key) {
    const auto value = metrics.find(key);
    return value != metrics.end() && value->is_number() ? std::optional(value->get<double>())
                                                        : std::nullopt;
  };
  const char* what = metrics.contains("slipped_seconds") ? "rehearsal: step" : "step";
  std::string line = fmt::format("{} {}/{}", what, metrics.value("step", -1) + 1, total_steps);
  if (const auto loss = number("loss")) line += fmt::format("  loss {:.4f}", *loss);
  if (const auto rate = number("tokens_per_second"))
    line += fmt::format("  {} tokens/s", short_rate(*rate));
  if (const auto bubble = number("bubble_fraction"))
    line += fmt::format("  bubble {:.1f} %", 100 * *bubble);
  if (seconds_left >= 0) line += fmt::format("  {} left", short_duration(seconds_left));
  return line;
}

Progress::Progress(std::FILE* out, bool terminal, int total_steps)
    : out_(out), terminal_(terminal), total_steps_(total_steps) {}

void Progress::say(const std::string& text) {
  say_in_passing(out_, fmt::format("{}{}\n", line_open_ ? "\r\033[K" : "", text));
  line_open_ = false;
}

void Progress::step(const nlohmann::json& metrics) {
  totals_.add(metrics);
  const double now = monotonic_seconds();
  const int step = metrics.value("step", -1);
  if (!first_time_) {
    first_time_ = now;
    first_step_ = step;
  }
  const int taken = step - first_step_;
  const int left = total_steps_ - step - 1;
  const double seconds_left = taken > 0 ? (now - *first_time_) / taken * left : -1;
  const bool edge = totals_.steps() == 1 || left == 0;
  if (edge || now - last_shown_ >= (terminal_ ? kTerminalPause : kLinePause)) {
    last_shown_ = now;
    show(progress_line(metrics, total_steps_, seconds_left), left == 0);
  }
}

void Progress::show(const std::string& line, bool last) {
  if (!terminal_) {
    say_in_passing(out_, line + "\n");
    return;
  }
  say_in_passing(out_, fmt::format("\r\033[K{}{}", line, last ? "\n" : ""));
  line_open_ = !last;
}

void Progress::close() {
  if (std::exchange(line_open_, false)) say_in_passing(out_, "\n");
}

}  // namespace trireme
