"""Programs that run by themselves: their language, their steps, and ready-made ones."""
