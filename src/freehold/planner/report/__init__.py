"""A plan as JSON, as a sheet of cash flows, as plots and as one page."""
