"""Delivery: the outbox, its worker, and what becomes of each thing we owe the outside world."""
