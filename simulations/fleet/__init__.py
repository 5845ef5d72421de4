"""Who is there, how fast it computes and how fast its link is: what makes rounds of a simulation minutes and bytes."""
