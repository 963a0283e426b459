"""Crash tests: a real store, killed at random moments under load, and at every named point of a change."""
