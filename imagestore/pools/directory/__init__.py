"""The directory driver: a pool of sparse files and one SQLite catalog."""
