"""Speed, measured on demand as ratios within one run; nothing here is a test."""
