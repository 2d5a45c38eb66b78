# Options that the project's own targets share.

# Warnings, and paths relative to the source root in __FILE__ and std::source_location.
function(weir_target_options target)
  target_compile_options(
    ${target}
    PRIVATE "-fmacro-prefix-map=${PROJECT_BINARY_DIR}/include/weir/="
            "-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=")
  if(NOT PROJECT_IS_TOP_LEVEL)
    return()
  endif()
  target_compile_options(
    ${target} PRIVATE -Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual)
  if(WEIR_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # A false alarm for every "text" + std::string at -O3.
    target_compile_options(${target} PRIVATE -Wno-restrict)
  endif()
  if(WEIR_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Instrumented code defeats the flow analysis behind this one: false alarms only.
    target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
  endif()
  target_compile_definitions(${target} PRIVATE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
endfunction()

# What Debian's hardening-check looks for. `-fcf-protection` is of x86; in the library only its shadow
# stack, for marks of branch targets cost the path of a request instructions (docs/performance.md): who
# wants them gives -fcf-protection in CMAKE_CXX_FLAGS, as dpkg-buildflags does.
function(weir_harden target)
  if(NOT WEIR_HARDENING OR WEIR_SANITIZE)
    return()
  endif()
  target_compile_options(
    ${target} PRIVATE -fstack-protector-strong
                      "$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
  target_link_options(${target} PRIVATE LINKER:-z,relro LINKER:-z,now)
  get_target_property(type ${target} TYPE)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|i.86)$")
    if(type STREQUAL "EXECUTABLE")
      target_compile_options(${target} PRIVATE -fcf-protection)
    elseif(NOT CMAKE_CXX_FLAGS MATCHES "-fcf-protection")
      target_compile_options(${target} PRIVATE -fcf-protection=return)
    endif()
  endif()
endfunction()

# A library built with a sanitizer needs users built with it, and its headers choose the plain frame
# allocator there: so these go along with the target. Programs that do not link weir call this too.
function(weir_sanitize target)
  if(NOT WEIR_SANITIZE)
    return()
  endif()
  set(flags "-fsanitize=${WEIR_SANITIZE}" -fno-omit-frame-pointer -fno-sanitize-recover=all)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # It asks the kernel, through a pipe, whether an object's memory is there: without a descriptor none is.
    list(APPEND flags -fno-sanitize=vptr)
  endif()
  target_compile_options(${target} PUBLIC ${flags})
  target_link_options(${target} PUBLIC "-fsanitize=${WEIR_SANITIZE}")
  target_compile_definitions(${target} PUBLIC WEIR_SANITIZED=1)
endfunction()

# weir_precompile(<target> [<header>...])
#
# Reads the standard headers once for the whole target: a third of the time of an -O0 file. No header of
# the project is among them, so that a change in one costs what it did. A missing include would not be
# seen: the preset clang builds without.
function(weir_precompile target)
  if(NOT WEIR_PRECOMPILE)
    return()
  endif()
  target_precompile_headers(
    ${target} PRIVATE <algorithm> <array> <atomic> <cerrno> <chrono> <coroutine> <cstdint> <cstdio>
    <cstdlib> <cstring> <deque> <exception> <functional> <map> <memory> <mutex> <optional> <span>
    <stdexcept> <string> <string_view> <system_error> <thread> <unordered_map> <utility> <variant>
    <vector> ${ARGN})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # for ccache
    if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
      # More false alarms of its kind: inside of precompiled std::string it is no system header's any more.
      target_compile_options(${target} PRIVATE -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread)
    endif()
  endif()
endfunction()

# weir_together(<target> [<file>...])
#
# With WEIR_LIBRARY_TOGETHER several of the target's files are compiled as one, all but these.
function(weir_together target)
  if(WEIR_LIBRARY_TOGETHER)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
    # A file's locals and another one's globals; and GCC takes a file that is included for a header.
    target_compile_options(${target} PRIVATE -Wno-shadow "$<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>")
    set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

# weir_add_program(<name> [OUTPUT_DIRECTORY <dir>] SOURCES <file>... [LINK <library>...])
#
# One executable with the project's options.
function(weir_add_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "OUTPUT_DIRECTORY" "SOURCES;LINK")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINK} Threads::Threads)
  target_compile_features(${name} PRIVATE cxx_std_20)
  weir_target_options(${name})
  target_link_options(${name} PRIVATE "$<$<NOT:$<CONFIG:Debug>>:LINKER:--gc-sections>")
  if(NOT "weir::weir" IN_LIST arg_LINK)
    weir_sanitize(${name})
  endif()
  if(arg_OUTPUT_DIRECTORY)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${arg_OUTPUT_DIRECTORY}")
  endif()
endfunction()

# weir_reached_headers(<variable> <header>...)
#
# The headers of the tree that these include, themselves included, as paths below the source root.
function(weir_reached_headers variable)
  set(reached ${ARGN})
  set(waiting ${ARGN})
  while(waiting)
    list(POP_FRONT waiting header)
    file(STRINGS "${PROJECT_SOURCE_DIR}/${header}" lines REGEX "^#include <weir/[^>]+>")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE ".*<weir/([^>]+)>.*" "\\1" header "${line}")
      if(NOT header IN_LIST reached)
        list(APPEND reached "${header}")
        list(APPEND waiting "${header}")
      endif()
    endforeach()
  endwhile()
  set(${variable} ${reached} PARENT_SCOPE)
endfunction()
