"""This site's part in secure sums."""
