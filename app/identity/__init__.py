"""Who calls, and what he may do: tokens, roles, courses, the table of routes, limits of rate, and pages of other sites."""
