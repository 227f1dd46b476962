"""A support hub: one person, one conversation, over WhatsApp, SMS, web chat and e-mail."""

__version__ = "0.1.0"
