// Read before a CPU kernel file, which then registers its kernels for CUDA.
#pragma once

#include "core/kernels/register.h"

#define cpu cuda
