"""What a reconstruction is judged by, one file for each kind of loss."""
