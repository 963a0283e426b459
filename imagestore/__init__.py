"""imagestore: the image and guest-disk store of a hypervisor."""

__version__ = "0.1.0"
