"""What a person asks of a machine or a recipe: doctor, profile, memory, demo."""
