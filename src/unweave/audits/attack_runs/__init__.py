"""Runs the attacks of an audit: a plan, the same comparison with retrained models for all, and controls."""
