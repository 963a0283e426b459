"""What imagestore must reach, measured in ratios on the machine at hand.  Run with ``make bench``."""
