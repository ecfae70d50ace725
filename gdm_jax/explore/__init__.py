"""The page of --mode=explore: what it asks for, how that is made, and the server between them."""
