"""Slow cases: agents that walk to a door in a corridor, trained in loops of their own within a `watch`."""

import numpy as np
import tensorflow as tf
from networks import mlp
from trainings import Training, healthy, sick

from relu_probe import watch

K, L = tf.keras, tf.keras.layers

STATES, DOOR, DISCOUNT, COST = 16, 10, 0.9, 0.1  # on either side of the door another move is best
MOVES = np.array([-1, 1])
INPUTS = np.stack([np.cos(np.pi * k * (np.arange(STATES) + 0.5) / STATES) for k in range(1, 5)], 1).astype("float32")
NEXT = np.clip(np.arange(STATES)[:, None] + MOVES, 0, STATES - 1)  # (states, actions)
GOES_ON = np.arange(STATES) != DOOR  # where the walk ends
BEST_MOVES = np.eye(2)[(np.arange(STATES) < DOOR).astype(int)]


def returns_of(policy):
    """`(states,)`: the discounted return under `policy (states, actions)`, where every step costs `COST`."""
    moves = np.zeros((STATES, STATES))
    for action in range(2):
        moves[np.arange(STATES), NEXT[:, action]] += policy[:, action] * GOES_ON
    return np.linalg.solve(np.eye(STATES) - DISCOUNT * moves, -COST * GOES_ON)


Q_VALUES = (-COST + DISCOUNT * returns_of(BEST_MOVES)[NEXT]).astype("float32")


# --- deep Q-learning by train_on_batch --------------------------------------------------------------------------------


def q_learning(seed, output=None, rate=0.001, *, kernel="glorot_uniform", episodes=60):
    """An agent that learns from random states; the network that gives its targets follows once an episode."""
    rng = np.random.default_rng(seed)
    optimizer = K.optimizers.Adam(rate)
    hidden = L.Dense(32, "relu", name="hidden", kernel_initializer=kernel)
    model = mlp(4, hidden, L.Dense(2, output, name="out"), optimizer=optimizer)

    def loop():
        for _ in range(episodes):
            targets = -COST + DISCOUNT * (model(INPUTS).numpy().max(axis=1) * GOES_ON)[NEXT]
            with watch(model) as seen:
                for states in rng.integers(STATES, size=(20, 32)):
                    model.train_on_batch(INPUTS[states], targets[states])
        return seen.report()

    return Training(model, INPUTS, Q_VALUES, loop=loop, chance=float(np.mean(Q_VALUES.var(axis=0))))


def usual_agent(seed):
    """The reference learns as the agents do, with He initialisation: one that is given the true values is no agent."""
    return q_learning(seed, kernel="he_normal")


@sick(
    "out",
    "dead_output cut",
    forbidden="narrow inputs bias_start",
    reference=usual_agent,
    output=None,
)
def an_agent_whose_values_end_in_a_relu(seed, output="relu"):
    return q_learning(seed, output)


@sick(
    "hidden",
    "trained_down",
    forbidden="narrow inputs bias_start dead_output",
    reference=usual_agent,
    rate=0.001,
)
def an_agent_at_a_high_rate(seed, rate=1.0):
    return q_learning(seed, rate=rate)


@healthy
def an_agent_that_learns(seed):
    return q_learning(seed)


# --- actor and critic with a shared trunk -----------------------------------------------------------------------------


def actor_critic(seed, rate=0.001, kernel="glorot_uniform", updates=800):
    """Both heads stand on one trunk."""
    rng = np.random.default_rng(seed)
    states = K.Input((4,))
    trunk = L.Dense(32, "relu", name="trunk", kernel_initializer=kernel)(states)
    model = K.Model(states, [L.Dense(2, "softmax", name="actor")(trunk), L.Dense(1, name="critic")(trunk)])
    model.compile(K.optimizers.Adam(rate))

    @tf.function
    def update(at, actions, following, goes_on):
        with tf.GradientTape() as tape:
            policy, values = model(at)
            _, later = model(following)
            errors = tf.stop_gradient(DISCOUNT * later[:, 0] * goes_on - COST) - values[:, 0]
            chosen = tf.reduce_sum(policy * tf.one_hot(actions, 2), 1)
            surprise = -tf.math.log(chosen + 1e-7) * tf.stop_gradient(errors)
            loss = tf.reduce_mean(surprise + tf.square(errors))
        weights = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))

    def loop():
        for _ in range(updates // 20):
            with watch(model) as seen:
                for at in rng.integers(STATES, size=(20, 64)):
                    policy = model(INPUTS)[0].numpy()[at]
                    actions = (rng.random(64) < policy[:, 1]).astype(int)
                    goes_on = GOES_ON[NEXT[at, actions]].astype("float32")
                    update(INPUTS[at], actions, INPUTS[NEXT[at, actions]], goes_on)
        return seen.report()

    def cost(trained):
        return -float(np.mean(returns_of(trained(INPUTS)[0].numpy())))

    chance = -float(np.mean(returns_of(np.full((STATES, 2), 0.5))))
    return Training(model, INPUTS, None, loop=loop, loss=cost, chance=chance)


def usual_actor_critic(seed):
    """The reference: He initialisation, and the rate at which the other agents learn."""
    return actor_critic(seed, kernel="he_normal")


@sick(
    "trunk",
    "trained_down",
    forbidden="narrow inputs bias_start dead_output",
    reference=usual_actor_critic,
    rate=0.001,
)
def an_actor_and_a_critic_on_one_trunk(seed, rate=1.0):
    return actor_critic(seed, rate)
