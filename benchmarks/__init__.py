"""Ratios between two things measured alternately in the same run, never absolute times."""
