"""Saves a video: fetched over an unreliable connection, verified, put where it is wanted."""
