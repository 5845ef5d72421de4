"""What is not well at this site, measured and told."""
