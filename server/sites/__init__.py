"""Who belongs to the federation."""
