# cmake -DPLUGIN=FILE.so -P StrataSeal.cmake: appends the checksum that the loader compares, so that a
# cut or altered plugin is refused before it is loaded. Stripping removes it again.
file(SHA256 "${PLUGIN}" hash)
file(APPEND "${PLUGIN}" "\nstrata-seal:${hash}\n")
