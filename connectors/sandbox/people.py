"""The made-up people of the sandbox: customers of a shop, with what support and marketing know them by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody made up. Numbers are from the ranges kept for fiction: NANP 555-0100 to 555-0199, Ofcom 020 7946 0000 to 0999."""

    id: str
    name: str
    phone: str
    email: str
    user_id: str  # at the shop


PEOPLE = (
    Person("ada", "Ada Okafor", "+12025550123", "ada@example.com", "shop-1001"),
    Person("ben", "Ben Lindqvist", "+442079460123", "ben@example.com", "shop-1002"),
    Person("chen", "Chen Wei", "+12025550147", "chen@example.com", "shop-1003"),
)
