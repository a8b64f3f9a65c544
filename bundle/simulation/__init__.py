"""Forward models: from tissue or sharp volumes to what a scanner would have recorded."""
