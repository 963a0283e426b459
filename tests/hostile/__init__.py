"""Clients that mean harm, or are broken: against a real ``imagestore serve``."""
