# CUDA: libstrata_cuda.so and a <plugin>_cuda.so per plugin, built when nvcc is found.
#   STRATA_CUDA = AUTO | ON | OFF
include_guard()

set(STRATA_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (when nvcc is found), ON or OFF")
set_property(CACHE STRATA_CUDA PROPERTY STRINGS AUTO ON OFF)
# Machine code for Hopper, and PTX that any card from Ampere on can run.
set(STRATA_CUDA_ARCHITECTURES "90a-real;80-virtual" CACHE STRING "CMAKE_CUDA_ARCHITECTURES of the kernels")

set(STRATA_HAS_CUDA OFF)
if(STRATA_CUDA AND NOT STRATA_SANITIZE)
  find_program(STRATA_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda/bin PATH_SUFFIXES bin)
  if(STRATA_NVCC)
    set(CMAKE_CUDA_COMPILER ${STRATA_NVCC})
    set(CMAKE_CUDA_ARCHITECTURES ${STRATA_CUDA_ARCHITECTURES})
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
    enable_language(CUDA)
    # CMake 3.25 does not know that nvcc 13 has C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
      list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
    endif()
    find_package(CUDAToolkit 12.8 REQUIRED)
    set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
    set(STRATA_HAS_CUDA ON)
  elseif(NOT STRATA_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "STRATA_CUDA=${STRATA_CUDA}: there is no nvcc; install the CUDA toolkit or set CUDA_HOME")
  endif()
endif()
message(STATUS "Strata: CUDA kernels ${STRATA_HAS_CUDA}")

# Flags of a library of kernels. Nothing but its registrations is exported.
function(strata_cuda_options target)
  set_target_properties(${target} PROPERTIES CUDA_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fno-gnu-unique
    --expt-relaxed-constexpr -diag-suppress=20012>)
  target_link_libraries(${target} PRIVATE CUDA::cudart)
endfunction()
