# `cmake --install`: a tree that can be moved (bin, lib, plugins, include, configs), and the package
# file that find_package(Strata) reads, for the install tree and for the build tree alike.
include(CMakePackageConfigHelpers)

# Authors see contract, ops and kernels; their tests also the kit and what it stands on.
install(TARGETS strata_core strata_host strata_kit EXPORT StrataTargets
  LIBRARY DESTINATION lib ARCHIVE DESTINATION lib)
foreach(part core/contract core/ops core/kernels core/tensor core/model core/io core/quant plugins/host plugins/kit)
  cmake_path(GET part PARENT_PATH parent)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/${part} DESTINATION include/strata/${parent}
    FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh")
endforeach()
install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs DESTINATION share/strata OPTIONAL)
if(TARGET strata_cuda)
  install(TARGETS strata_cuda LIBRARY DESTINATION lib)
endif()
if(TARGET strata)
  install(TARGETS strata RUNTIME DESTINATION bin)
endif()

set(package lib/cmake/Strata)
configure_file(core/cmake/StrataConfig.cmake.in ${package}/StrataConfig.cmake @ONLY)
configure_file(core/cmake/StrataLayer.cmake ${package}/StrataLayer.cmake COPYONLY)
configure_file(core/cmake/StrataSeal.cmake ${package}/StrataSeal.cmake COPYONLY)
configure_file(core/cmake/StrataBuildId.cmake ${package}/StrataBuildId.cmake COPYONLY)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/${package}/StrataConfigVersion.cmake COMPATIBILITY SameMinorVersion)
export(EXPORT StrataTargets NAMESPACE Strata:: FILE ${CMAKE_BINARY_DIR}/${package}/StrataTargets.cmake)
install(EXPORT StrataTargets NAMESPACE Strata:: DESTINATION ${package})
install(FILES ${CMAKE_BINARY_DIR}/${package}/StrataConfig.cmake ${CMAKE_BINARY_DIR}/${package}/StrataConfigVersion.cmake
  ${CMAKE_BINARY_DIR}/${package}/StrataLayer.cmake
  ${CMAKE_BINARY_DIR}/${package}/StrataSeal.cmake ${CMAKE_BINARY_DIR}/${package}/StrataBuildId.cmake DESTINATION ${package})
