"""Rounds with the sites: asked, answered, added up."""
