"""How ``llmpower route`` is told of the headers in the files that its tests share (cli/conftest.py)."""

COLUMNS = ("--column", "input_tokens=ContextTokens", "--column", "output_tokens=GeneratedTokens")
TIMED = ("--workload", "{d}/timed.csv", "--column", "timestamp=at")
