"""Examples, each of which is also run as a test."""
