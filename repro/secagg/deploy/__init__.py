"""Secure aggregation between machines: durable identities, a signed directory, many rounds."""
