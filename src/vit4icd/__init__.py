"""Image copy detection: is this picture an edited copy of one we hold, and of which one?"""

__version__ = "0.1.0"
