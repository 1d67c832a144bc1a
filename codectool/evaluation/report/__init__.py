"""Report: an HTML page with tables, a chart, an audio player and a blind test."""
