"""Metrics: what Prometheus reads."""

from runtime import metrics


def test_all_numbers_are_rendered_under_our_name() -> None:
    """A dashboard finds them by one prefix, together with those of the process itself."""
    metrics.CLAIMS.labels("poll").inc()
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    assert 'coordinator_claims_total{source="poll"}' in text.decode()
    assert b"coordinator_polls_parked" in text
