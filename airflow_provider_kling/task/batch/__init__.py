"""What a batch is made of: its rows, their records, the run that submits and saves them."""
