"""Events: their JSON, the file they are appended to, and the outbox that sends them to other machines."""

from edge_fr.events.delivery import Delivery as Delivery
from edge_fr.events.delivery import Letter as Letter
from edge_fr.events.event import Sighting as Sighting
from edge_fr.events.event import face_event as face_event
from edge_fr.events.event import sighting as sighting
from edge_fr.events.event import to_json as to_json
from edge_fr.events.event import to_line as to_line
from edge_fr.events.event import uuid7 as uuid7
from edge_fr.events.jsonl import JsonlSink as JsonlSink
from edge_fr.events.mqtt import MqttDelivery as MqttDelivery
from edge_fr.events.outbox import Outbox as Outbox
from edge_fr.events.outbox import SinkStatus as SinkStatus
from edge_fr.events.retry import RetryPolicy as RetryPolicy
from edge_fr.events.webhook import WebhookDelivery as WebhookDelivery
