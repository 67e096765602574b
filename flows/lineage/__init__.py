"""Where pictures, models and artifacts come from."""
