# find_package(greenlet CONFIG) defines the target greenlet::greenlet: the folder that
# <greenlet/greenlet.h> is in. There is no library to link with; the header finds the functions when
# the program imports greenlet.
#
# The file finds the header from its own place, so the package may be moved.
get_filename_component(greenlet_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
set(greenlet_INCLUDE_DIRS "${greenlet_INCLUDE_DIR}")
if(NOT TARGET greenlet::greenlet)
  add_library(greenlet::greenlet INTERFACE IMPORTED)
  set_target_properties(greenlet::greenlet PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${greenlet_INCLUDE_DIR}")
endif()
