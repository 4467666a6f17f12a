# What the tree and plugins in other repositories share:
#   strata_kernel_sources(target files...)   compiles kernel files once per instruction set
#   strata_add_layer(name)                   builds <name>.so from the folder's sources
include_guard()

# 'native' builds for this machine only.
set(STRATA_ISAS "portable;avx2;avx512" CACHE STRING "Instruction sets that kernel files are compiled for")

# One copy of a static per library, so that two plugins never share one by accident.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  set(STRATA_PLUGIN_FLAGS -fno-gnu-unique)
endif()

set(STRATA_ISA_FLAGS_portable -DSTRATA_ISA=0)
set(STRATA_ISA_FLAGS_avx2 -DSTRATA_ISA=1 -march=x86-64-v3)
set(STRATA_ISA_FLAGS_avx512 -DSTRATA_ISA=2 -march=x86-64-v4 -mprefer-vector-width=512)
set(STRATA_ISA_FLAGS_native -DSTRATA_ISA=3 -march=native -mprefer-vector-width=512)

# Kernel files register themselves; at run time the registry keeps the best variant that the CPU
# can execute. They include kernel headers only, so that no shared inline code is compiled for a
# newer CPU than the one it runs on.
function(strata_kernel_sources target)
  foreach(isa IN LISTS STRATA_ISAS)
    set(objects ${target}_kernels_${isa})
    add_library(${objects} OBJECT ${ARGN})
    target_compile_features(${objects} PRIVATE cxx_std_20)
    set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON
      CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
    target_compile_options(${objects} PRIVATE ${STRATA_PLUGIN_FLAGS} ${STRATA_ISA_FLAGS_${isa}}
      -ffp-contract=fast -fno-math-errno -fno-trapping-math)
    target_include_directories(${objects} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
    target_link_libraries(${objects} PRIVATE OpenMP::OpenMP_CXX)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()

# A layer plugin: every .cpp of the folder but the tests; *_cpu.cpp are kernel files.
function(strata_add_layer name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_cpu.cpp)
  file(GLOB layer_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cpp)
  file(GLOB layer_benches CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_bench.cpp)
  list(REMOVE_ITEM sources ${kernels} ${layer_tests} ${layer_benches})
  add_library(${name} MODULE ${sources})
  target_link_libraries(${name} PRIVATE Strata::core)
  target_compile_features(${name} PRIVATE cxx_std_20)
  target_compile_options(${name} PRIVATE ${STRATA_PLUGIN_FLAGS})
  target_link_options(${name} PRIVATE -Wl,--no-undefined)
  set(folder ${CMAKE_BINARY_DIR})
  if(STRATA_PLUGIN_DIR)
    set(folder ${STRATA_PLUGIN_DIR})
  endif()
  set_target_properties(${name} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${folder}
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON INSTALL_RPATH "$ORIGIN/../lib")
  if(kernels)
    strata_kernel_sources(${name} ${kernels})
  endif()
  if(folder STREQUAL "${CMAKE_BINARY_DIR}/plugins")  # a first-party plugin
    add_dependencies(strata_plugins ${name})
    install(TARGETS ${name} LIBRARY DESTINATION plugins)
  endif()
endfunction()
