//! antiphon-proto
