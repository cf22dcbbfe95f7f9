"""Terminal output and exports: progress, status, explanations, reports and recommendations."""
