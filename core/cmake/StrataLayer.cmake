# What the tree and plugins in other repositories share:
#   strata_kernel_sources(target files...)   compiles kernel files once per instruction set
#   strata_add_layer(name)                   builds <name>.so from the folder's sources
#   strata_finish_plugin(target)             gives a module target what a plugin needs
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

set(STRATA_SEAL ${CMAKE_CURRENT_LIST_DIR}/StrataSeal.cmake)
set(STRATA_BUILD_ID ${CMAKE_CURRENT_LIST_DIR}/StrataBuildId.cmake)

# Flags, place, and the checksum at the file's end. STRATA_PLUGIN_DIR: where this tree keeps plugins.
function(strata_finish_plugin target)
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_compile_options(${target} PRIVATE ${STRATA_PLUGIN_FLAGS})
  target_link_options(${target} PRIVATE -Wl,--build-id=sha1)
  if(NOT STRATA_SANITIZE)  # sanitizers leave their runtime to the executable
    target_link_options(${target} PRIVATE -Wl,--no-undefined)
  endif()
  set_target_properties(${target} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  if(STRATA_PLUGIN_DIR)  # installing must not rewrite the file
    set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${STRATA_PLUGIN_DIR}
      INSTALL_RPATH "$ORIGIN/../lib" BUILD_WITH_INSTALL_RPATH ON)
  endif()
  add_custom_command(TARGET ${target} POST_BUILD VERBATIM
    COMMAND ${CMAKE_COMMAND} -DPLUGIN=$<TARGET_FILE:${target}> -P ${STRATA_SEAL})
endfunction()

# <name>_cuda.so: the CUDA kernels of a plugin, under the build id of its .so, so that the loader can
# tell that the two belong together.
function(strata_add_cuda_half name)
  set(half ${name}_cuda)
  set(same_id ${CMAKE_CURRENT_BINARY_DIR}/${name}.build_id)
  add_custom_command(TARGET ${name} POST_BUILD VERBATIM
    COMMAND ${CMAKE_COMMAND} -DPLUGIN=$<TARGET_FILE:${name}> -DREADELF=${CMAKE_READELF} -DOUT=${same_id}
      -P ${STRATA_BUILD_ID})
  add_library(${half} MODULE ${ARGN})
  add_dependencies(${half} ${name})
  set_property(TARGET ${half} APPEND PROPERTY LINK_DEPENDS $<TARGET_FILE:${name}>)
  target_link_libraries(${half} PRIVATE Strata::core strata_cuda)
  strata_cuda_options(${half})
  target_link_options(${half} PRIVATE @${same_id})
  set_target_properties(${half} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  if(STRATA_PLUGIN_DIR)
    set_target_properties(${half} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${STRATA_PLUGIN_DIR}
      INSTALL_RPATH "$ORIGIN/../lib" BUILD_WITH_INSTALL_RPATH ON)
    add_dependencies(strata_plugins ${half})
    install(TARGETS ${half} LIBRARY DESTINATION plugins)
  endif()
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
  strata_finish_plugin(${name})
  if(kernels)
    strata_kernel_sources(${name} ${kernels})
  endif()
  file(GLOB cuda CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_cuda.cu)
  if(cuda AND STRATA_HAS_CUDA)
    strata_add_cuda_half(${name} ${cuda})
  endif()
  if(STRATA_PLUGIN_DIR)
    add_dependencies(strata_plugins ${name})
  endif()
  if(STRATA_PLUGIN_DIR STREQUAL "${CMAKE_BINARY_DIR}/plugins")  # a first-party plugin, no example
    install(TARGETS ${name} LIBRARY DESTINATION plugins)
  endif()
endfunction()
