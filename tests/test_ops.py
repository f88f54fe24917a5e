"""Every record of the page, on both lanes: values, derivatives to second order, broadcasting, layouts and shared operands."""
