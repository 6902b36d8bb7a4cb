"""Figures of the SDK."""
