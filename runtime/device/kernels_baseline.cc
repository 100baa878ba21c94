#define TRIREME_KERNELS kernels_baseline
#define TRIREME_KERNELS_NAME "baseline"
#include "runtime/device/kernels.inc"
