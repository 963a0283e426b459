"""Tests of imagestore.events."""
