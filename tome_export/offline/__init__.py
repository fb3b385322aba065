"""The parts of `tome_export.predict_many`: listing (which files), request (what is asked), parts (the folder
of what is finished), stages (what Ray runs), cluster (Ray itself), gather (rows to shards) and table (the
parquet files)."""
