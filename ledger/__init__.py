"""What the consortium is: signed records, the rules between them, and the log that keeps them."""
