#define TRIREME_KERNELS kernels_avx2
#define TRIREME_KERNELS_NAME "avx2"
#include "runtime/device/kernels.inc"
