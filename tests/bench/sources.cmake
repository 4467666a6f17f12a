# The rows of devices, which the benchmarks and their tests share. Among them the host half of the
# operations of plugins, which plugins do not export; the kernels are the plugins' own.
file(GLOB STRATA_BENCH_DEVICE_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/bench/device/*.cpp
  ${CMAKE_SOURCE_DIR}/layers/*/*_cases_bench.cpp ${CMAKE_SOURCE_DIR}/layers/mamba2/ssd_*.cpp)
list(FILTER STRATA_BENCH_DEVICE_SOURCES EXCLUDE REGEX "_(cpu|by_name|test|scan_bench)\\.cpp$")
list(APPEND STRATA_BENCH_DEVICE_SOURCES ${CMAKE_SOURCE_DIR}/tests/bench/model_rig.cpp
  ${CMAKE_SOURCE_DIR}/tests/bench/options.cpp)
