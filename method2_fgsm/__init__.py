"""Method 2: the fast gradient sign method (Goodfellow et al. 2015)."""
