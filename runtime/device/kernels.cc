#include "runtime/device/kernels.h"

namespace trireme {

namespace kernels_baseline {
extern const Kernels table;
}
namespace kernels_avx2 {
extern const Kernels table;
}
namespace kernels_avx512 {
extern const Kernels table;
}

const Kernels& kernels() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return kernels_avx512::table;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2::table;
#endif
  return kernels_baseline::table;
}

}  // namespace trireme
