"""What is sold: meters, features, prices, plans, rate cards; and to whom: customers, subscriptions."""
