"""What the runs show: statistics, tables and plots. No torch."""
