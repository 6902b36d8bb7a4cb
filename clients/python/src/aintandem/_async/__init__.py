"""The client of the control plane, with `async`; the one without is generated from it (hatch_build.py)."""
