# What zig cannot do as CMake tells compilers for macOS: its linker does not read archives of GNU's format,
# and crashes when it makes a bundle (0.17.1). Python imports any other shared library as well.
foreach(language C CXX ASM)
  set(CMAKE_${language}_ARCHIVE_CREATE "zig ar --format=darwin qcs <TARGET> <LINK_FLAGS> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_FINISH "")
  set(CMAKE_SHARED_MODULE_CREATE_${language}_FLAGS "-dynamiclib")
endforeach()
