"""Photographs, and the networks that know what they show."""
