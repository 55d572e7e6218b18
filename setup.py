"""The part of the build that pyproject.toml can't say: the cffi module and the stable-ABI tag of its wheel."""

from setuptools import setup

setup(
    cffi_modules=["dtp_core/build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
