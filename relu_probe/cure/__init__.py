"""What brings dead neurons back to life, or removes them, without a change of the model's predictions."""
