"""Bodies of requests and answers, one model per shape: validation, /openapi.json and the client's types follow them."""
