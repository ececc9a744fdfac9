# The extension module greenlet._greenlet and what is installed with it.

find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)

if(NOT Python_INTERPRETER_ID MATCHES "^(Python|Anaconda|ActivePython|Canopy)$" OR NOT Python_SOABI MATCHES "cpython|^cp3")
  message(FATAL_ERROR
    "greenlet works on CPython's own frames and thread states; "
    "${Python_EXECUTABLE} is not CPython 3.11 or newer.")
endif()
if(Python_VERSION VERSION_GREATER_EQUAL 3.13 AND Python_VERSION VERSION_LESS 3.14
   AND Python_SOABI MATCHES "cpython-313t|^cp313t")
  message(FATAL_ERROR
    "Free-threaded 3.13 was an experiment of CPython's and is not supported by greenlet; "
    "use free-threaded 3.14 or newer, or the default build of 3.13.")
endif()

file(GLOB greenlet_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/src/core/*.cpp
  ${PROJECT_SOURCE_DIR}/src/cpython/*.cpp
  ${PROJECT_SOURCE_DIR}/src/module/*.cpp)
python_add_library(_greenlet MODULE WITH_SOABI ${greenlet_sources})
target_compile_definitions(_greenlet PRIVATE GREENLET_VERSION_STRING="${PROJECT_VERSION}")
# LTO may separate the .symver directives in it from the code that they are about.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/cpython/stack_bounds.cpp
                            PROPERTIES COMPILE_OPTIONS -fno-lto)
target_include_directories(_greenlet PRIVATE
  ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)

# CPython's internal headers: frames, thread states. SYSTEM, as they do not meet our warnings.
foreach(directory IN LISTS Python_INCLUDE_DIRS)
  target_include_directories(_greenlet SYSTEM PRIVATE ${directory} ${directory}/internal)
  if(EXISTS ${directory}/internal/mimalloc) # 3.13+; free-threaded thread states contain heaps
    target_include_directories(_greenlet SYSTEM PRIVATE ${directory}/internal/mimalloc)
  endif()
endforeach()

# Nothing here needs libstdc++, and to load it takes longer than all of greenlet; the one thing in it
# that concerns a switch, src/context/exceptions.cpp looks for. `make wheels` checks this.
target_link_libraries(_greenlet PRIVATE greenlet_options greenlet_platform greenlet_stack greenlet_context)
if(APPLE)
  target_link_options(_greenlet PRIVATE -Wl,-dead_strip)
else()
  target_link_options(_greenlet PRIVATE -static-libgcc -Wl,--gc-sections)
endif()
if(NOT WIN32 AND NOT APPLE)
  target_link_options(_greenlet PRIVATE -Wl,--as-needed -Wl,-z,relro -Wl,-z,now)
endif()

# A release keeps the names of its functions, without which gdb, py-spy and perf show "??" in each
# native stack: some 37 KB on the disk, 10 KB of a wheel. It keeps nothing else for debuggers, such as
# what the compiler's own libraries bring along.
target_link_options(_greenlet PRIVATE
  $<$<AND:$<CONFIG:Release>,$<NOT:$<PLATFORM_ID:Darwin>>>:-Wl,--strip-debug>)

check_ipo_supported(RESULT greenlet_ipo OUTPUT greenlet_ipo_output LANGUAGES CXX)
if(greenlet_ipo)
  set_target_properties(_greenlet greenlet_platform greenlet_stack greenlet_context PROPERTIES
    INTERPROCEDURAL_OPTIMIZATION_RELEASE ON
    INTERPROCEDURAL_OPTIMIZATION_RELWITHDEBINFO ON)
endif()

install(TARGETS _greenlet LIBRARY DESTINATION greenlet)
# The header has four places, because programs look for it in as many ways:
set(greenlet_header ${PROJECT_SOURCE_DIR}/include/greenlet/greenlet.h)
# - beside the package, where the first greenlets had it;
install(FILES ${greenlet_header} DESTINATION greenlet)
# - in a folder with nothing else, for compilers: greenlet.get_include();
install(FILES ${greenlet_header} DESTINATION greenlet/include/greenlet)
# - where installation puts headers. A compiler that is told the folder of Python.h finds
#   <greenlet/greenlet.h> there, if the environment is not a virtual one;
if(DEFINED SKBUILD_HEADERS_DIR)
  install(FILES ${greenlet_header} DESTINATION ${SKBUILD_HEADERS_DIR})
endif()
# - in a virtual environment those are in include/site/pythonX.Y, where no tool looks. setuptools
#   looks in include.
if(DEFINED SKBUILD_DATA_DIR)
  install(FILES ${greenlet_header} DESTINATION ${SKBUILD_DATA_DIR}/include/greenlet)
endif()

# For find_package() and pkg-config. scikit-build-core finds greenlet/cmake by itself.
include(CMakePackageConfigHelpers)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/greenlet-config-version.cmake COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)
configure_file(${PROJECT_SOURCE_DIR}/cmake/greenlet.pc.in ${PROJECT_BINARY_DIR}/greenlet.pc @ONLY)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/greenlet-config.cmake
              ${PROJECT_BINARY_DIR}/greenlet-config-version.cmake
        DESTINATION greenlet/cmake)
install(FILES ${PROJECT_BINARY_DIR}/greenlet.pc DESTINATION greenlet/pkgconfig)

# A software bill of materials (PEP 770): what is in the wheel that is not ours, the few functions that the
# compiler adds from its own library. greenlet needs no other package.
if(DEFINED SKBUILD_METADATA_DIR)
  string(REPLACE "+" "%2B" greenlet_purl_version "${greenlet_full_version}")
  set(greenlet_libgcc_version "unknown") # clang takes that of some gcc
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set(greenlet_libgcc_version ${CMAKE_CXX_COMPILER_VERSION})
  endif()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/sbom.cdx.json.in ${PROJECT_BINARY_DIR}/greenlet.cdx.json @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/greenlet.cdx.json DESTINATION ${SKBUILD_METADATA_DIR}/sboms)
endif()
