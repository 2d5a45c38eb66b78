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
  if(WEIR_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Instrumented code defeats the flow analysis behind this one: false alarms only.
    target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
  endif()
  target_compile_definitions(${target} PRIVATE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
endfunction()

# A library built with a sanitizer needs users built with it, and its headers choose the plain frame
# allocator there: so these go along with the target. Programs that do not link weir call this too.
function(weir_sanitize target)
  if(NOT WEIR_SANITIZE)
    return()
  endif()
  set(flags "-fsanitize=${WEIR_SANITIZE}" -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_compile_options(${target} PUBLIC ${flags})
  target_link_options(${target} PUBLIC "-fsanitize=${WEIR_SANITIZE}")
  target_compile_definitions(${target} PUBLIC WEIR_SANITIZED=1)
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
  target_link_options(${name} PRIVATE "$<$<CONFIG:Release>:LINKER:--gc-sections>")
  if(NOT "weir::weir" IN_LIST arg_LINK)
    weir_sanitize(${name})
  endif()
  if(arg_OUTPUT_DIRECTORY)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${arg_OUTPUT_DIRECTORY}")
  endif()
endfunction()
