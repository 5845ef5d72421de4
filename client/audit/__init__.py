"""What this site writes down for good."""
