"""The command line: parses, calls one function of `app`, prints. Heavy libraries load inside the commands."""
