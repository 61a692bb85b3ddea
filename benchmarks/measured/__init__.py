"""What `benchmarks.performance` measures: plain functions, each run in a process of its own."""
