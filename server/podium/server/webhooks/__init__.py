"""Tells the world outside that jobs ended or stalled, by signed HTTP requests. See docs/webhooks.md."""

from podium.server.webhooks._settings import Webhook, WebhookSettings, webhooks_from_environment
from podium.server.webhooks._webhooks import Webhooks

__all__ = ["Webhook", "WebhookSettings", "Webhooks", "webhooks_from_environment"]
