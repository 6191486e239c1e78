"""What operators, sensor and decorator share while a task runs."""
