"""Links that a task shows on its page."""
