"""What a pass is: its options, what it needs and preserves, what it reports, and what passes share."""
