"""The vendor's models and what their parameters may be."""
