"""Tests of how benchmarks are told, never of what they measure."""
