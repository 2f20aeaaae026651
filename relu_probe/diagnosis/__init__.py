"""Why a neuron died, how sure that is, and what to do."""
