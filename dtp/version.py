"""The version of this package; the build and everything else that tells it reads it here."""

__version__ = "0.1.0"
