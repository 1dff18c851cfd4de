"""Patch SVDD in JAX and Flax: anomaly detection and segmentation from normal images only.

J. Yi and S. Yoon, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020.
"""

__version__ = '0.1.0'
