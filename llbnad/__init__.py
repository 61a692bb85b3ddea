"""LLBNAD: fully unsupervised anomaly detection from training images that contain unlabelled defects.

The method of "Leveraging Learning Bias for Noisy Anomaly Detection" (arXiv 2508.07441), for any detector.
This package takes arrays, tables and paths and returns plain frozen objects; it knows nothing of the tools
(DVC, Dagster, MLflow, Great Expectations) that `orchestration/` builds around it.
"""

__version__ = "0.2.0"
