"""Fixation densities for image collections of any size, with DeepGaze II.

Plain Python, torch and Arrow: nothing in this package knows about Ray (that is `cluster`) or
about command lines (that is `jobs`).
"""

__version__ = "0.1.0"
