"""Reports of quantization error: what each layer would lose in each scheme (`sensitivity`), what a
compiled model has lost op by op (`model_error`), and what a newer artifact loses against an older
one (`regression`); as rows for tables and JSON, and as one HTML page (`page`)."""
