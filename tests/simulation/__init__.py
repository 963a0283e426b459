"""A whole store in one thread: virtual clock, disk, pool and image service in memory, crashes at any step."""
