# The target weir_llhttp, where llhttp (https://github.com/nodejs/llhttp) is there: Debian 13 has it as
# a library (libllhttp-dev), Debian 12 as C source (node-llhttp), installed or only unpacked by ./dev.
# To be included from a CMakeLists.txt, not from a function: it may enable the language C.
if(TARGET weir_llhttp)
  return()
endif()

find_library(LLHTTP_LIBRARY llhttp)
find_path(LLHTTP_INCLUDE_DIR llhttp.h)
find_path(
  LLHTTP_SOURCE_DIR share/llhttp/llhttp.c
  HINTS "${PROJECT_SOURCE_DIR}/build/packages/node-llhttp/usr"
  PATHS /usr)
mark_as_advanced(LLHTTP_LIBRARY LLHTTP_INCLUDE_DIR LLHTTP_SOURCE_DIR)

if(LLHTTP_LIBRARY AND LLHTTP_INCLUDE_DIR)
  add_library(weir_llhttp INTERFACE)
  target_link_libraries(weir_llhttp INTERFACE "${LLHTTP_LIBRARY}")
  target_include_directories(weir_llhttp SYSTEM INTERFACE "${LLHTTP_INCLUDE_DIR}")
elseif(LLHTTP_SOURCE_DIR)
  if(NOT CMAKE_C_COMPILER)  # the C compiler that comes with the C++ compiler
    string(REGEX REPLACE "clang\\+\\+([^/]*)$" "clang\\1" c_compiler "${CMAKE_CXX_COMPILER}")
    string(REGEX REPLACE "g\\+\\+([^/]*)$" "gcc\\1" c_compiler "${c_compiler}")
    if(EXISTS "${c_compiler}")
      set(CMAKE_C_COMPILER "${c_compiler}")
    endif()
  endif()
  enable_language(C)
  add_library(weir_llhttp STATIC)
  foreach(name api http llhttp)
    target_sources(weir_llhttp PRIVATE "${LLHTTP_SOURCE_DIR}/share/llhttp/${name}.c")
  endforeach()
  target_include_directories(weir_llhttp SYSTEM PUBLIC "${LLHTTP_SOURCE_DIR}/share/include/llhttp")
  # Up to version 8 it is strict only if asked to be.
  target_compile_definitions(weir_llhttp PUBLIC LLHTTP_STRICT_MODE=1)
  target_compile_options(weir_llhttp PRIVATE -w)
  weir_sanitize(weir_llhttp)
endif()
