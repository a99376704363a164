"""Benchmarks: CPU per event beside the floor, latency, and how cost and memory grow."""
