"""Evaluation: metrics on labelled images, figures and reports."""
