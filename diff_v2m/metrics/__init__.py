"""Metrics: functions on arrays, shared by training and evaluation."""
