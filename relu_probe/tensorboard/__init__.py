"""How TensorBoard shows a report: event files of a run directory."""
