"""What is sold: meters, features, prices, plans, rate cards; and who buys it."""
