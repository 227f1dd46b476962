"""How customers say they were served: the one question after a ticket, their answers, and what came of both."""
