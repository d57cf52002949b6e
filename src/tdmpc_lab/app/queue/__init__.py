"""Jobs that wait, run or are over: status, pages, logs, cancelling, removing."""
