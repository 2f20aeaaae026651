"""Counting of one step: probes, masks, counting kernels and the variables that hold the counts."""
