"""SA-1, secure aggregation: the server learns a sum over sites and nothing else. Rules and maths only, no I/O.

Family: Bonawitz et al., CCS 2017 (pairwise and self masks, Shamir); Bell et al., CCS 2020 (sparse graph).
"""
