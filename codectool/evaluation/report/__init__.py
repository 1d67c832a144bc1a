"""One page of HTML to read and to listen to."""
