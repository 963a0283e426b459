"""The packages: built from the checkout, installed in a clean root, used, upgraded and removed."""
