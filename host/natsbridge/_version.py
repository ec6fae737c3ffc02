"""The version, in the one place that both faces read."""

__version__ = "0.1.0"
