"""TFLite files: the bytes (`model_file`), the table's encodings (`codec`), and the graph (`reader`, `writer`)."""
