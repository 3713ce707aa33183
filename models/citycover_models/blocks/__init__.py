"""Encoders and modules that papers truly share."""
