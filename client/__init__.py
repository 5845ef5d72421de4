"""The site: agent, enrolment, training, update protection, scoring."""
