"""Conversations: what a message becomes, which ticket it belongs to, what agents do with it."""


class Refusal(Exception):
    """What was asked cannot be done; the text says why, for the person who asked. Nothing was changed."""
