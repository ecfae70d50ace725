"""Groupwise diffusion models (GDM): sequential generation over groups of data, in JAX."""

__version__ = '0.1.0'
