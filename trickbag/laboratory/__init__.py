"""Laws that every trick obeys, and the small laboratory in which they are tried."""
