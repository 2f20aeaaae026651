"""What brings dead neurons back to life without a change of the model's predictions."""
