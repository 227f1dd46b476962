"""What several connectors need: signatures, phone words, MIME."""
