"""Who this site is: joining, renewing, leaving."""
