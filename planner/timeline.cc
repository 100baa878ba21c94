#include "planner/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "planner/cost/kernels.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

double flops_of(const std::vector<Kernel>& kernels) {
  double sum = 0;
  for (const Kernel& kernel : kernels) sum += kernel.flops;
  return sum;
}

char mark_of(const Op& op) {
  switch (op.kind) {
    case OpKind::forward:
      return static_cast<char>('0' + op.micro_batch % 10);
    case OpKind::backward:
    case OpKind::backward_input:
      return static_cast<char>('a' + op.micro_batch % 26);
    case OpKind::backward_weight:
      return '~';
  }
  return '?';
}

const char* name_of(OpKind kind) {
  switch (kind) {
    case OpKind::forward:
      return "forward";
    case OpKind::backward:
      return "backward";
    case OpKind::backward_input:
      return "input gradient";
    case OpKind::backward_weight:
      return "weight gradient";
  }
  return "";
}

// Lighter shades for later chunks, so that interleaving can be seen.
std::string color_of(const Op& op, int chunk) {
  constexpr std::array<std::array<int, 2>, 4> kHueAndSaturation = {
      {{212, 65}, {28, 75}, {350, 60}, {140, 40}}};
  const auto& [hue, saturation] = kHueAndSaturation[static_cast<size_t>(op.kind)];
  return fmt::format("hsl({},{}%,{}%)", hue, saturation, std::min(48 + 8 * chunk, 88));
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

constexpr double kLeft = 70, kTop = 60, kRow = 26, kWidth = 1200;

std::string svg_legend(double y) {
  std::string svg;
  double x = kLeft;
  for (const OpKind kind :
       {OpKind::forward, OpKind::backward, OpKind::backward_input, OpKind::backward_weight}) {
    svg += fmt::format(
        "<rect x='{}' y='{}' width='14' height='14' fill='{}'/><text x='{}' y='{}'>{}</text>\n", x,
        y, color_of({kind, false, 0, 0}, 0), x + 20, y + 12, name_of(kind));
    x += 150;
  }
  return svg +
         fmt::format("<text x='{}' y='{}'>lighter: later chunk; blank: idle</text>\n", x, y + 12);
}

}  // namespace

Costs drawing_costs(const Plan& plan) {
  const WorkShape shape{plan.layout.micro_batch, plan.layout.tensor, plan.layout.sequence_parallel,
                        plan.layout.recompute, plan.job.training.dtype};
  const auto cost_of = [](const PartKernels& part) {
    return StageCost{flops_of(part.forward), flops_of(part.input), flops_of(part.weight)};
  };
  const StageCost layer = cost_of(layer_kernels(plan.job.model, shape));
  const StageCost head = cost_of(head_kernels(plan.job.model, shape));
  Costs costs;
  costs.stages.clear();
  for (const Stage& stage : plan.stages) {
    const double heads = stage.head ? 1 : 0;
    costs.stages.push_back({stage.layers * layer.forward + heads * head.forward,
                            stage.layers * layer.input + heads * head.input,
                            stage.layers * layer.weight + heads * head.weight});
  }
  double pipeline = 0;
  for (const auto& [cause, seconds] : plan.prediction.breakdown) {
    if (cause == "forward" || cause == "backward" || cause == "tensor_communication" ||
        cause == "pipeline_idle") {
      pipeline += seconds;
    }
  }
  const double drawn = makespan_of(plan.schedule, costs);
  const double scale = drawn > 0 && pipeline > 0 ? pipeline / drawn : 1;
  for (StageCost& stage : costs.stages) {
    stage = {scale * stage.forward, scale * stage.input, scale * stage.weight};
  }
  return costs;
}

std::string timeline_text(const Schedule& schedule, const Simulation& simulation, int width) {
  std::string text;
  const int columns = std::max(10, width - 10);
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    std::string line(static_cast<size_t>(columns), '.');
    size_t op = 0;
    const std::vector<OpTimes>& times = simulation.ops[rank];
    for (int column = 0; column < columns; ++column) {
      const double now = (column + 0.5) / columns * simulation.makespan;
      while (op < times.size() && times[op].end <= now) ++op;
      if (op < times.size() && times[op].start <= now) {
        line[static_cast<size_t>(column)] = mark_of(schedule.ranks[rank][op]);
      }
    }
    text += fmt::format("rank {:>3}  {}\n", rank, line);
  }
  return text;
}

std::string timeline_legend() {
  return "0-9 forward, a-z backward of a micro-batch; ~ weight gradient; . idle";
}

std::string timeline_svg(const Schedule& schedule, const Simulation& simulation,
                         const std::string& title, bool seconds) {
  size_t count = 0;
  for (const auto& program : schedule.ranks) count += program.size();
  if (count > 100000) {
    throw Error(ErrorKind::unavailable,
                fmt::format("a drawing of {} ops helps nobody; up to 100000 are drawn", count));
  }
  const double height = kTop + kRow * static_cast<double>(schedule.ranks.size()) + 50;
  const double scale = simulation.makespan > 0 ? kWidth / simulation.makespan : 0;
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{1}' viewBox='0 0 {0} {1}' "
      "font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n"
      "<text x='{2}' y='20' font-size='15'>{3}</text>\n",
      kLeft + kWidth + 20, height, kLeft, escape(title));
  svg += svg_legend(32);
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const double y = kTop + kRow * static_cast<double>(rank);
    svg += fmt::format("<text x='8' y='{}'>rank {}</text>\n", y + 16, rank);
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Op& op = schedule.ranks[rank][i];
      const OpTimes& times = simulation.ops[rank][i];
      const double x = kLeft + times.start * scale, w = (times.end - times.start) * scale;
      svg += fmt::format(
          "<rect x='{:.2f}' y='{}' width='{:.2f}' height='{}' fill='{}' stroke='white' "
          "stroke-width='0.5'><title>{}: {:.6g} to {:.6g}</title></rect>\n",
          x, y, w, kRow - 4, color_of(op, schedule.stages[static_cast<size_t>(op.stage)].chunk),
          to_string(op), times.start, times.end);
      if (w >= 16) {
        svg +=
            fmt::format("<text x='{:.2f}' y='{}' text-anchor='middle' font-size='10'>{}</text>\n",
                        x + w / 2, y + 15, op.micro_batch);
      }
    }
  }
  const double bottom = height - 20;
  svg += fmt::format(
      "<text x='{}' y='{}'>0</text><text x='{}' y='{}' text-anchor='end'>{:.6g}{}</text>\n", kLeft,
      bottom, kLeft + kWidth, bottom, simulation.makespan, seconds ? " s" : "");
  return svg + "</svg>\n";
}

std::string timeline_trace(const Schedule& schedule, const Simulation& simulation) {
  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  const char* separator = "\n";
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    json += fmt::format(
        "{}{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":0,\"tid\":{},"
        "\"args\":{{\"name\":\"pipeline rank {}\"}}}}",
        separator, rank, rank);
    separator = ",\n";
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Op& op = schedule.ranks[rank][i];
      const OpTimes& times = simulation.ops[rank][i];
      json += fmt::format(
          ",\n{{\"name\":\"{}\",\"cat\":\"{}\",\"ph\":\"X\",\"pid\":0,\"tid\":{},\"ts\":{:.3f},"
          "\"dur\":{:.3f},\"args\":{{\"stage\":{},\"micro_batch\":{}}}}}",
          to_string(op), name_of(op.kind), rank, times.start * 1e6, (times.end - times.start) * 1e6,
          op.stage, op.micro_batch);
    }
  }
  return json + "\n]}\n";
}

}  // namespace trireme
