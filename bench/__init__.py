"""Measure Farebox's hot paths as ratios in one run: `python -m bench`, explained in docs/."""
