"""Reports of counts: what follows from them, how they are shown, and how they are written. NumPy and rich only."""
