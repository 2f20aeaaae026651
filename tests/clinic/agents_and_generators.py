"""Slow cases, with training loops and steps of their own: agents, a GAN, and variational autoencoders."""

import numpy as np
import tensorflow as tf

K, L = tf.keras, tf.keras.layers

# --- an agent that walks to the end of a corridor ---------------------------------------------------------------------

STATES, DISCOUNT = 16, 0.9
ACTIONS = np.array([-1, 1])
STATE_INPUTS = np.stack([np.cos(np.pi * k * (np.arange(STATES) + 0.5) / STATES) for k in range(4)], 1).astype("float32")


def next_states(states, actions):
    return np.clip(states + ACTIONS[actions], 0, STATES - 1)


@tf.autograph.experimental.do_not_convert
def true_values(rewards):
    """`(states, 2)`: the discounted return of each action and the best ones after it. The walk ends in the last state."""
    q = np.zeros((STATES, 2))
    for _ in range(300):
        best = np.where(np.arange(STATES) == STATES - 1, 0, q.max(1))
        q = rewards + DISCOUNT * best[next_states(np.arange(STATES)[:, None], np.arange(2)[None])]
    return q


def corridor(seed):
    """The inputs of all states, and the true values of both actions, where every step costs 1."""
    return STATE_INPUTS, true_values(-1.0).astype("float32")
