"""Customers: canonical identifiers, who a message is from, joins made on proof alone."""
