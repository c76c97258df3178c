//! Generated rows to Parquet files.
