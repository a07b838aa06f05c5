//! What the spool tells about itself, readable from any thread without asking the owner.

/// A picture of the spool. Sizes are bytes, times are milliseconds since 1970, UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// The stream's generation.
    pub generation: u32,
    /// The first block held (equal to `durable_next_seq` if there is none).
    pub first_seq: u64,
    /// The first number that is not durable.
    pub durable_next_seq: u64,
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The quota for them.
    pub max_bytes: u64,
    /// Bytes of batches that wait in memory.
    pub queued_bytes: u64,
    /// What the store takes on disk.
    pub disk_bytes: u64,
    /// Free space of the file system.
    pub free_bytes: u64,
    /// Since when the oldest block has waited to be sent by every output (for blocks found at opening:
    /// since the opening).
    pub oldest_unsent_since_unix_ms: Option<u64>,
    /// Since when an append has been waiting (or would wait) for room.
    pub full_since_unix_ms: Option<u64>,
    /// Why nothing is appended at the moment.
    pub waiting: Option<String>,
    /// The last error, also if it is over.
    pub last_error: Option<String>,
    /// How often the store was reopened after an error.
    pub reopened: u64,
    /// How often the store was rebuilt because it had grown.
    pub recreated: u64,
    /// How often the store was reopened to empty its cache.
    pub refreshed: u64,
    /// Damaged stores that are kept aside.
    pub quarantined: u64,
    /// Dead letters that are kept.
    pub dead_letters: u64,
    /// Since when the running store call has been running, if that is too long.
    pub stuck_since_unix_ms: Option<u64>,
    /// Set: the stream must be begun anew before anything is appended.
    pub needs_restream: Option<String>,
    /// Blocks made durable since the start.
    pub appended_blocks: u64,
    /// Syncs since the start.
    pub syncs: u64,
}
