"""TFLite files: the bytes (`model_file`, as `records`), the table's encodings (`codec`), and the graph (`reader`, `writer`)."""
