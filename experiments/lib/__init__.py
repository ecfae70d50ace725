"""What experiments share: the command line, measurements, tables and pages."""
