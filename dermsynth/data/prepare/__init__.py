"""Downloads become image sets: layouts, splits by patient, copies kept together."""
