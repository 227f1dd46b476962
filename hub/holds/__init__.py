"""Holds: do not market to this customer now. Never a consent state; an opt-out is a different ledger."""
