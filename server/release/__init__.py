"""From final weights to a signed model at the sites."""
