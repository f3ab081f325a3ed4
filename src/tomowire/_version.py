"""The version, in a module of its own so that the lowest layers and the build can read it."""

__version__ = "0.1.0"
