# The target weir::tls, where OpenSSL 3 is there. Who does not link it has nothing of either.
if(NOT OPENSSL_FOUND)
  message(STATUS "OpenSSL 3 (libssl-dev) is not there: weir::tls is left out")
  add_custom_target(weir_tls)  # so that README's line to build what is installed holds
  return()
endif()

file(GLOB weir_tls_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/net/tls/*.cpp")
set(weir_tls_headers tls.h net/tls/context.h net/tls/start_tls.h)
list(TRANSFORM weir_tls_headers PREPEND "${weir_include_dir}/weir/")

add_library(weir_tls ${weir_tls_sources})
add_library(weir::tls ALIAS weir_tls)
target_sources(
  weir_tls
  PUBLIC FILE_SET HEADERS
         BASE_DIRS "${weir_include_dir}"
         FILES ${weir_tls_headers})
target_link_libraries(
  weir_tls
  PUBLIC weir
  PRIVATE OpenSSL::SSL OpenSSL::Crypto)
set_target_properties(
  weir_tls
  PROPERTIES CXX_EXTENSIONS OFF
             CXX_SCAN_FOR_MODULES OFF
             EXPORT_NAME tls
             OUTPUT_NAME weir-tls
             VERSION "${PROJECT_VERSION}"
             SOVERSION "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
weir_target_options(weir_tls)
weir_harden(weir_tls)
weir_together(weir_tls "${PROJECT_SOURCE_DIR}/net/tls/simulated_random.cpp")  # asks for a declaration of its own
target_compile_options(weir_tls PRIVATE -ffunction-sections -fdata-sections "$<$<CONFIG:Release>:-O2>")
