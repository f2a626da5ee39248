//! attempts, backoff, fallback
