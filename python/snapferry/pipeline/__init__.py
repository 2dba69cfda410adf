"""What moves data: backup, restore, reading, verification, copying. One task group each; decisions come in as frozen values."""
