"""Seconds, memory and arithmetic on the machine at hand."""

from .run import PARTS, SIZES, benchmark

__all__ = ["PARTS", "SIZES", "benchmark"]
