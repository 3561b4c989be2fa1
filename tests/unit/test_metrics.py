"""Check the metrics that Prometheus reads."""

from runtime import metrics


def test_all_metrics_have_our_prefix() -> None:
    """Dashboards find them by one prefix, with the process metrics."""
    metrics.CLAIMS.labels("poll").inc()
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    assert 'coordinator_claims_total{source="poll"}' in text.decode()
    assert b"coordinator_polls_parked" in text
