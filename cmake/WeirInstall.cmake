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

# The pages as they lie in the tree, since they lead to each other and to the examples, and the site
# that `./dev docs` makes of them, where Doxygen is. Installed by the component's name alone.
set(weir_doc_options COMPONENT doc EXCLUDE_FROM_ALL)
foreach(page README.md README.zh.md CHANGELOG.md CONTRIBUTING.md LICENSE SECURITY.md)
  install(FILES "${PROJECT_SOURCE_DIR}/${page}" DESTINATION "${CMAKE_INSTALL_DOCDIR}" ${weir_doc_options})
endforeach()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/docs" "${PROJECT_SOURCE_DIR}/examples" DESTINATION "${CMAKE_INSTALL_DOCDIR}"
        ${weir_doc_options} PATTERN site.py EXCLUDE PATTERN Doxyfile EXCLUDE)
find_program(WEIR_DOXYGEN doxygen)
mark_as_advanced(WEIR_DOXYGEN)
find_package(Python3 COMPONENTS Interpreter QUIET)
if(WEIR_DOXYGEN AND Python3_FOUND)
  install(CODE "execute_process(COMMAND \"${Python3_EXECUTABLE}\" \"${PROJECT_SOURCE_DIR}/docs/site.py\"
                                        \"${PROJECT_BINARY_DIR}/docs\" COMMAND_ERROR_IS_FATAL ANY)"
          ${weir_doc_options})
  install(DIRECTORY "${PROJECT_BINARY_DIR}/docs/html" DESTINATION "${CMAKE_INSTALL_DOCDIR}" ${weir_doc_options})
endif()
foreach(component dev doc)
  install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATAROOTDIR}/doc/libweir-${component}"
          RENAME copyright COMPONENT ${component} EXCLUDE_FROM_ALL)
endforeach()

# `cpack` in the build directory makes libweir-dev_VERSION_ARCH.deb and libweir-doc_VERSION_all.deb.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME libweir)
set(CPACK_PACKAGE_CONTACT "The weir authors <weir@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX "/usr")
set(CPACK_STRIP_FILES OFF)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL dev doc)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libweir-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "liburing-dev (>= 2.3), libspdlog-dev")
if(TARGET weir-top)
  string(APPEND CPACK_DEBIAN_DEV_PACKAGE_DEPENDS ", libncursesw6")
endif()
set(CPACK_DEBIAN_DEV_PACKAGE_RECOMMENDS "python3, libssl-dev (>= 3.0)")
set(CPACK_DEBIAN_DEV_PACKAGE_SUGGESTS libweir-doc)
set(CPACK_DEBIAN_DOC_PACKAGE_NAME libweir-doc)
set(CPACK_DEBIAN_DOC_PACKAGE_SECTION doc)
set(CPACK_DEBIAN_DOC_PACKAGE_ARCHITECTURE all)
set(CPACK_COMPONENT_DOC_DESCRIPTION "Guide, reference and examples of ${PROJECT_NAME}")
include(CPack)
