"""What lies on the destinations: names, keys, small objects, sessions, listings, presence and the index. Knows no volume's data."""
