"""`codectool doctor`: what this machine and this installation can do, and what to repair."""
