"""The official bucket's records: a `tf.train.SequenceExample` a clip, in ArrayRecord files."""
