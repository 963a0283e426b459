"""The OpenZFS driver: libzfs_core, and the zfs and zpool commands."""
