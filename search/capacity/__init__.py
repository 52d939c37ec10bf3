"""How many trials at a time, how long they take, and what they write."""
