"""The private names of TensorFlow that the package relies on: if TensorFlow changes one, the test named for it fails."""

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from relu_probe.utils.tensorflow_private import import_event

pytestmark = pytest.mark.upstream


def test_the_handle_of_a_summary_writer_takes_any_event(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    import_event(writer, Event(step=7, session_log=SessionLog(status=SessionLog.START)))
    writer.close()
    (file,) = tmp_path.iterdir()
    written = [(event.step, event.session_log.status) for event in EventFileLoader(str(file)).Load()]
    assert written == [(0, SessionLog.STATUS_UNSPECIFIED), (7, SessionLog.START)]  # the first is the file's version
