"""The consortium's side: service, Flower ServerApp, aggregation, the log's one writer."""
