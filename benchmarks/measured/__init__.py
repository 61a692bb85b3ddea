"""The measurements of `benchmarks.performance`: plain functions, each run in a process of its own."""
