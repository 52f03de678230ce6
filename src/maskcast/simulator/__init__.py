"""Simulators with exact masks: rigid bodies on a plane, green-screen figures, and hands."""
