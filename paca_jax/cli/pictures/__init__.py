"""The command lines that show pictures to a model."""
