"""What people do to a set before they train on it: look at it, check it, put it into other files.

Nothing here changes the set that it reads, and all of it works on whatever `open_records` takes.
"""
