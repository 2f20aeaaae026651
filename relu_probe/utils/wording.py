"""Words of messages that depend on a number."""


def number(count: int, noun: str) -> str:
    """Returns the number and the noun, in the plural where the number asks for it.

    >>> number(1, "neuron"), number(1234, "neuron")
    ('1 neuron', '1,234 neurons')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
