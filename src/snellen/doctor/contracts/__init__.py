"""Contracts: what must hold of any training whose result can be trusted. A breach is certain; no statistics."""
