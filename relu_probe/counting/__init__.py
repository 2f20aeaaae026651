"""How one step is counted: probes, masks, kernels and the variables that hold the counts."""
