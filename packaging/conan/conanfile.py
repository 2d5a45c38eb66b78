"""Conan 2: conan create packaging/conan"""

import os

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class Weir(ConanFile):
    name = "weir"
    version = "0.2.0"
    license = "MIT"
    description = "Coroutine TCP framework for Linux, on io_uring"
    settings = "os", "compiler", "build_type", "arch"
    options = {"shared": [True, False]}
    default_options = {"shared": False}
    requires = "liburing/[>=2.3]", "spdlog/[>=1.10]"
    generators = "CMakeDeps", "PkgConfigDeps"

    def export_sources(self):
        root = os.path.join(self.recipe_folder, "..", "..")
        for pattern in ("CMakeLists.txt", "LICENSE", "*.h", "cmake/*", "coro/*", "core/*", "io/*",
                        "net/*", "lint/*", "viewer/*", "doctor/weir-gdb.py"):
            copy(self, pattern, root, self.export_sources_folder)

    def validate(self):
        if self.settings.os != "Linux":
            raise ConanInvalidConfiguration("weir needs Linux")
        check_min_cppstd(self, 20)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "EXAMPLES", "BENCH", "DOCTOR"):
            toolchain.cache_variables[f"WEIR_BUILD_{part}"] = False
        toolchain.cache_variables["WEIR_WERROR"] = False
        toolchain.cache_variables["WEIR_GDB_SCRIPT"] = ""  # packages move
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        self.cpp_info.libs = ["weir"]
        self.cpp_info.system_libs = ["pthread"]
        self.cpp_info.set_property("cmake_target_name", "weir::weir")
