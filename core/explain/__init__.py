"""Why: recorded decisions and the numbers behind them, for people who ask. A file a topic, a function `explain_TOPIC` in each."""
