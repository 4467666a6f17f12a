# Compiler settings and the two functions that the tree and out-of-tree plugins share:
#   strata_kernel_sources(target files...)   compiles kernel files once per instruction set
#   strata_add_layer(name)                   builds plugins/<name>.so from the folder's sources
include_guard()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O3")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

find_program(STRATA_CCACHE ccache)
if(STRATA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${STRATA_CCACHE})
endif()

# The same source gives the same object wherever the tree lies.
add_compile_options(-ffile-prefix-map=${CMAKE_SOURCE_DIR}=. -fno-gnu-unique -Wall -Wextra)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  set_property(DIRECTORY PROPERTY COMPILE_OPTIONS -ffile-prefix-map=${CMAKE_SOURCE_DIR}=. -Wall -Wextra)
endif()
if(STRATA_WERROR)
  add_compile_options(-Werror)
endif()
if(STRATA_SANITIZE)
  add_compile_options(-fsanitize=${STRATA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=${STRATA_SANITIZE})
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
    target_compile_options(${objects} PRIVATE ${STRATA_ISA_FLAGS_${isa}} -ffp-contract=fast -fno-math-errno -fno-trapping-math)
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
  list(REMOVE_ITEM sources ${kernels} ${layer_tests})
  add_library(${name} MODULE ${sources})
  target_link_libraries(${name} PRIVATE Strata::core)
  set_target_properties(${name} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins
    INSTALL_RPATH "$ORIGIN/../lib")
  target_link_options(${name} PRIVATE -Wl,--no-undefined)
  if(kernels)
    strata_kernel_sources(${name} ${kernels})
  endif()
endfunction()
