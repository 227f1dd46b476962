"""How a mail's text falls into own words, signature and quotes. The door is connectors/shared/reply_text.py."""
