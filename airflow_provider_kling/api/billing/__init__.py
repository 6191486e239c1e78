"""What a generation costs: the price list, the estimate, the charge."""
