"""The model file: card, archive, checks, predictor, precision."""
