# Cross-compiles for macOS with zig, which is on PATH. CMAKE_SYSTEM_PROCESSOR is arm64 or x86_64, from
# CMake's command line.
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_VERSION 20) # macOS 11, the first on arm64

set(target ${CMAKE_SYSTEM_PROCESSOR}-macos.11.0)
string(REPLACE "arm64-" "aarch64-" target ${target})
set(CMAKE_C_COMPILER zig cc -target ${target})
set(CMAKE_CXX_COMPILER zig c++ -target ${target})
set(CMAKE_ASM_COMPILER zig cc -target ${target})
set(CMAKE_USER_MAKE_RULES_OVERRIDE ${CMAKE_CURRENT_LIST_DIR}/macos/rules.cmake)
set(CMAKE_INSTALL_NAME_TOOL true) # nothing has such a name
set(CMAKE_CROSSCOMPILING_EMULATOR env) # FindPython asks an interpreter of this machine
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES CMAKE_SYSTEM_PROCESSOR)

set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE NEVER)
