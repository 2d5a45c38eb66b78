include(CMakePackageConfigHelpers)

set(weir_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/weir")

install(
  TARGETS weir
  EXPORT weirTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(
  EXPORT weirTargets
  NAMESPACE weir::
  DESTINATION "${weir_cmake_dir}")

if(TARGET weir::tls)
  install(
    TARGETS weir_tls
    EXPORT weirTlsTargets
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
  install(
    EXPORT weirTlsTargets
    NAMESPACE weir::
    DESTINATION "${weir_cmake_dir}")
endif()

install(PROGRAMS "${PROJECT_SOURCE_DIR}/lint/weir-lint" "${PROJECT_SOURCE_DIR}/packaging/new/weir-new"
                 "${PROJECT_SOURCE_DIR}/viewer/weir-sim-view" DESTINATION "${CMAKE_INSTALL_BINDIR}")

install(FILES "${PROJECT_SOURCE_DIR}/doctor/weir-gdb.py"
        DESTINATION "${CMAKE_INSTALL_DATADIR}/gdb/auto-load")

configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/weirConfig.cmake.in" "${PROJECT_BINARY_DIR}/weirConfig.cmake"
  INSTALL_DESTINATION "${weir_cmake_dir}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/weirConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/weirConfig.cmake"
              "${PROJECT_BINARY_DIR}/weirConfigVersion.cmake" DESTINATION "${weir_cmake_dir}")

# The prefix is found from where weir.pc lies, so that the tree may be installed or moved anywhere.
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_LIBDIR BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}"
           OUTPUT_VARIABLE weir_full_libdir)
file(RELATIVE_PATH weir_pc_to_prefix "${weir_full_libdir}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" weir_pc_to_prefix "${weir_pc_to_prefix}")
foreach(kind LIBDIR INCLUDEDIR)
  cmake_path(IS_ABSOLUTE CMAKE_INSTALL_${kind} absolute)
  if(absolute)
    set(weir_pc_${kind} "${CMAKE_INSTALL_${kind}}")
  else()
    set(weir_pc_${kind} "\${prefix}/${CMAKE_INSTALL_${kind}}")
  endif()
endforeach()
# A static library needs its own libraries on every user's link line.
if(weir_type STREQUAL "STATIC_LIBRARY")
  set(weir_pc_requires "Requires")
else()
  set(weir_pc_requires "Requires.private")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/weir.pc.in" "${PROJECT_BINARY_DIR}/weir.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/weir.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
if(TARGET weir::tls)
  if(weir_type STREQUAL "STATIC_LIBRARY")
    set(weir_pc_tls_requires "Requires: weir = ${PROJECT_VERSION}, openssl >= 3.0")
  else()
    set(weir_pc_tls_requires "Requires: weir = ${PROJECT_VERSION}\nRequires.private: openssl >= 3.0")
  endif()
  configure_file("${PROJECT_SOURCE_DIR}/cmake/weir-tls.pc.in" "${PROJECT_BINARY_DIR}/weir-tls.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/weir-tls.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endif()

# `cpack` in the build directory makes libweir-dev_VERSION_ARCH.deb.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME libweir-dev)
set(CPACK_PACKAGE_CONTACT "The weir authors <weir@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX "/usr")
set(CPACK_STRIP_FILES OFF)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "liburing-dev (>= 2.3), libspdlog-dev")
if(TARGET weir-top)
  string(APPEND CPACK_DEBIAN_PACKAGE_DEPENDS ", libncursesw6")
endif()
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3, libssl-dev (>= 3.0)")
include(CPack)
