"""Conversations: what a message becomes, which ticket it belongs to, what agents do with it."""
