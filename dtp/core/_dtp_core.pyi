"""Types of the module that cffi builds from dtp_core/dtp.h; what it offers is declared there."""

from typing import Any

ffi: Any
lib: Any
