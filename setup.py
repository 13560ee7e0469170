"""cffi's build hook; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["csrc/build.py:ffibuilder", "csrc/build.py:modelling", "csrc/build.py:routing"])
