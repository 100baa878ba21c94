#include <algorithm>

#include "topology/cluster.h"

// clang-format off
//
// Where the figures come from. Peaks are per second, dense: data sheets of Ampere and later print
// twice as much "with sparsity", halved here. Rates of links are one direction: vendors print both
// directions added, halved here. GB are 10^9 bytes; several cards hold somewhat more (an "80 GB"
// card has 80 GiB of chips), which stays as room for the CUDA context. Years are those in which
// chips came to market.
//
//   V100      NVIDIA V100 data sheet (Jan 2020), column "V100 for NVLink"
//   T4        NVIDIA T4 data sheet (Mar 2019)
//   A100      NVIDIA A100 data sheet (Jun 2021); 40 GB: NVIDIA A100 architecture whitepaper, table 4
//   H100      NVIDIA H100 architecture whitepaper v1.04, table 2 (SXM5)
//   A800, H800  A100 and H100 with 400 GB/s of NVLink both ways, for export (NVIDIA A800 data sheet)
//   H200      NVIDIA H200 data sheet: the compute of H100 SXM, 141 GB at 4.8 TB/s
//   GH200     NVIDIA GH200 Grace Hopper data sheet, 96 GB HBM3; host: NVLink-C2C, 900 GB/s both ways
//   B200      NVIDIA HGX B200 specification, an eighth of the board
//   L40S      NVIDIA L40S data sheet
//   RTX 3090  NVIDIA GA102 architecture whitepaper, appendix A: rates with fp32 accumulation;
//             NVLink: four links of 14.0625 GB/s each way
//   RTX 4090  NVIDIA Ada architecture whitepaper, appendix A: rates with fp32 accumulation
//   PCIe      x16: 16 (gen 3), 32 (gen 4), 64 (gen 5) GB/s each way, as the same data sheets count it
//   cpu       one slot is one core of a server of these years, nominal: 3 GHz with two 8-wide fused
//             multiply-adds per cycle is 96 GFLOP/s, a share of its memory, and loopback TCP as the
//             link. Machines differ; measure yours.
//
// What is sustained of these peaks (columns sm, matmul, attn, mem, coll, switch):
//   sm      multiprocessors, from the same white papers
//   matmul  large bf16 products, but for their results' bytes. The best shape that anybody found
//           reaches 86.9 % on A100 SXM, 80.3 % on H100 SXM, 83.6 % on GH200 at 900 W (S. Bekman,
//           Machine Learning Engineering, "Maximum Achievable Matmul FLOPS", 2025). Shapes of
//           training on a warm chip: a tenth less. That is 0.73 on Hopper, where it was measured
//           (docs/measurements/hopper.md), at clocks that its 700 W decide; devices that train
//           together spend some of them on links: 0.70. On A100, 0.80. B200: 60 %, because 1000 W
//           feed more than twice the arithmetic that 700 W do in an H100; nobody's table of
//           products is behind this figure, so it is weak ground.
//   attn    fused causal attention of 8192 tokens and heads of 128, forward and backward together:
//           FlashAttention-2 (Dao 2023: up to 73 % forward, 63 % backward) on A100; measured on
//           H100 and H200 (same page: 0.50 and 0.52), as FlashAttention-3 (Shah et al. 2024, figure
//           5) has it; B200 as Hopper; others as A100 at the generation's tensor cores without
//           asynchronous copies
//   mem     streaming kernels: 85 to 92 % of the data sheet in STREAM-like runs over gigabytes;
//           0.80 (0.85 on small memories) allows for kernels of few megabytes
//   coll    bus bandwidth of a large all-reduce over the link rate: nccl-tests report 230 to 235
//           GB/s of 300 in a DGX A100, 360 to 370 of 450 in a DGX H100
//   switch  NVSwitches of Hopper and later add up all-reduces: every device sends its bytes once
//           instead of nearly twice. nccl-tests then report 470 to 480 GB/s of bus bandwidth in a
//           DGX H100 (NCCL 2.17 and later), which is 4/7 of that, 270 of 450, sent by each device;
//           nobody's figure is behind that of B200
//
// clang-format on

namespace trireme {
namespace {

constexpr double kGiga = 1e9;
constexpr double kTera = 1e12;
// Chips of one kind differ, most of all where power limits them: by 8 % on average over clusters,
// 22 % at most (Sinha et al. 2022, "Not All GPUs Are Created Equal"), which as the span of
// a thousand normal variates is 6.5 standard deviations. Runs of 2024 and 2025 that NVIDIA
// published for 16 to 2048 H100 get longer by 1 to 3 % from one end to the other, as 0.02 has it.
constexpr double kSpeedSpread = 0.02;

// In the units of the data sheets: GB, GB/s and TFLOP/s.
struct Row {
  const char* name;
  int year, multiprocessors;
  double memory, memory_rate;
  double fp32, tf32, bf16, fp16;
  double link, pcie;
  double matmul, attention, memory_share, collective, in_switch;
};

// clang-format off
constexpr Row kRows[] = {
    // name            year  sm mem. rate fp32   tf32   bf16   fp16  link pcie matm. attn  mem  coll  swi.
    {"V100-SXM2-16GB",  2017,  80,  16,  900, 15.7,     0,     0,   125,   150,  16, 0.75, 0.25, 0.85, 0.80,    0},
    {"V100-SXM2-32GB",  2017,  80,  32,  900, 15.7,     0,     0,   125,   150,  16, 0.75, 0.25, 0.85, 0.80,    0},
    {"T4",              2018,  40,  16,  320,  8.1,     0,     0,    65,     0,  16, 0.45, 0.25, 0.80, 0.80,    0},
    {"A100-SXM4-40GB",  2020, 108,  40, 1555, 19.5,   156,   312,   312,   300,  32, 0.80, 0.58, 0.80, 0.77,    0},
    {"A100-SXM4-80GB",  2020, 108,  80, 2039, 19.5,   156,   312,   312,   300,  32, 0.80, 0.58, 0.80, 0.77,    0},
    {"A800-SXM4-80GB",  2020, 108,  80, 2039, 19.5,   156,   312,   312,   200,  32, 0.80, 0.58, 0.80, 0.77,    0},
    {"H100-SXM-80GB",   2022, 132,  80, 3350, 66.9, 494.7, 989.4, 989.4,   450,  64, 0.70, 0.52, 0.80, 0.80, 0.60},
    {"H800-SXM-80GB",   2022, 132,  80, 3350, 66.9, 494.7, 989.4, 989.4,   200,  64, 0.70, 0.52, 0.80, 0.80, 0.60},
    {"H200-SXM-141GB",  2023, 132, 141, 4800, 66.9, 494.7, 989.4, 989.4,   450,  64, 0.70, 0.52, 0.80, 0.80, 0.60},
    {"GH200-96GB",      2023, 132,  96, 4000, 66.9, 494.7, 989.4, 989.4,   450, 450, 0.70, 0.52, 0.80, 0.80,    0},
    {"B200-SXM-192GB",  2024, 148, 192, 8000,   75,  1125,  2250,  2250,   900,  64, 0.60, 0.45, 0.80, 0.80, 0.60},
    {"L40S",            2023, 142,  48,  864, 91.6,   183,   362,   362,     0,  32, 0.65, 0.40, 0.85, 0.80,    0},
    {"RTX-3090",        2020,  82,  24,  936, 35.6,  35.6,    71,    71, 56.25,  32, 0.80, 0.50, 0.80, 0.77,    0},
    {"RTX-4090",        2022, 128,  24, 1008, 82.6,  82.6, 165.2, 165.2,     0,  32, 0.80, 0.50, 0.85, 0.80,    0},
    {"cpu",                0,   0,   4,   10,  0.1,     0,     0,     0,   1.5,   0, 0.80, 0.80, 1.00, 1.00,    0},
};
// clang-format on

std::vector<Device> make_catalogue() {
  std::vector<Device> devices;
  for (const auto& row : kRows) {
    Device device;
    device.name = row.name;
    device.year = row.year;
    device.memory_bytes = row.memory * kGiga;
    device.memory_bytes_per_s = row.memory_rate * kGiga;
    device.fp32_flops = row.fp32 * kTera;
    device.tf32_flops = row.tf32 * kTera;
    device.bf16_flops = row.bf16 * kTera;
    device.fp16_flops = row.fp16 * kTera;
    device.link_bytes_per_s = row.link * kGiga;
    device.pcie_bytes_per_s = row.pcie * kGiga;
    device.multiprocessors = row.multiprocessors;
    device.matmul_efficiency = row.matmul;
    device.attention_efficiency = row.attention;
    device.memory_efficiency = row.memory_share;
    device.link_efficiency = row.collective;
    device.switch_efficiency = row.in_switch;
    device.speed_spread = device.is_cpu() ? 0 : kSpeedSpread;
    devices.push_back(device);
  }
  return devices;
}

const std::vector<Device>& catalogue() {
  static const std::vector<Device> devices = make_catalogue();
  return devices;
}

}  // namespace

const Device* find_device(std::string_view name) {
  const auto& devices = catalogue();
  const auto at = std::find_if(devices.begin(), devices.end(),
                               [name](const Device& device) { return device.name == name; });
  return at == devices.end() ? nullptr : &*at;
}

std::vector<std::string> catalogue_names() {
  std::vector<std::string> names;
  for (const auto& device : catalogue()) names.push_back(device.name);
  return names;
}

}  // namespace trireme
