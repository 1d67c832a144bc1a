"""Layers without opinion, shared by the codecs."""
