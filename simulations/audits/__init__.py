"""Audits of a privacy claim: what an attacker can show against it, beside what it promises."""
