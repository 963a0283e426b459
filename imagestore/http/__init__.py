"""The Quart-Trio application: RPC, downloads, health."""
