"""The one drawing library: charts, graphs, and pages as single files that open offline. Values are escaped."""
