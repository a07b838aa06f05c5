//! What a daemon needs around its work.
