#define TRIREME_KERNELS kernels_avx512
#define TRIREME_KERNELS_NAME "avx512"
#include "runtime/device/kernels.inc"
