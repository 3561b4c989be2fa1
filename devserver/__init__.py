"""`coordinator up`: replicas, embedded Postgres and Redis and a balancer, supervised on one machine."""
