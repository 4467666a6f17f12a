# cmake -DPLUGIN=FILE.so -DREADELF=readelf -DOUT=FILE -P StrataBuildId.cmake: writes the linker option
# that gives another library the build id of PLUGIN.
execute_process(COMMAND ${READELF} -n ${PLUGIN} OUTPUT_VARIABLE notes COMMAND_ERROR_IS_FATAL ANY)
if(NOT notes MATCHES "Build ID: ([0-9a-f]+)")
  message(FATAL_ERROR "${PLUGIN} has no build id")
endif()
file(WRITE ${OUT} "-Wl,--build-id=0x${CMAKE_MATCH_1}\n")
