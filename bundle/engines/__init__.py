"""Ignite workflows."""
