"""All cases of the clinic: trainings that go wrong in ways that people met, and healthy ones. To import it fills the tables."""

# ruff: noqa: F401
import agents
import generative_models
import healthy_trainings
import initialisers
import inputs_and_outputs
import penalties_and_losses
import rates
