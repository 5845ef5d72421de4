"""What the data of this site has paid, and what it may still pay."""
