"""Method 1: noise found by optimisation (Szegedy et al. 2014)."""
