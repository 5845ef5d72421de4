"""One file per command of the site operator."""
