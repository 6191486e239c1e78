"""A generation is paid once: identity, record, decision, submit."""
