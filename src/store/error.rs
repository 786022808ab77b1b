//! What may go wrong in a store.

/// Why the store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed, and a later try may succeed.
    #[error(
        "the store in {dir} failed: {reason}; make sure that its disk works and has room, and \
         that this user may write there: it is tried again"
    )]
    Disk {
        /// The store's directory.
        dir: String,
        /// What it said.
        reason: String,
    },
    /// A write failed, so the store takes no more: what reached the disk is not
    /// known until it is opened again, which happens as soon as there is room.
    #[error(
        "the store in {dir} takes no more writes since an earlier one failed; free some of its \
         disk: it is opened again then"
    )]
    Poisoned {
        /// The store's directory.
        dir: String,
    },
    /// Another process has the store.
    #[error("the store in {dir} is in use by another process; stop it")]
    InUse {
        /// The store's directory.
        dir: String,
    },
    /// What is on disk cannot be right.
    #[error(
        "the store in {dir} is damaged: {reason}; run `roost rebuild`, which makes it again \
         from the event log"
    )]
    Damaged {
        /// The store's directory.
        dir: String,
        /// What is wrong.
        reason: String,
    },
    /// More accounts than the store can number.
    #[error("the store holds as many accounts as it can number, {count_max}")]
    TooManyAccounts {
        /// How many that is.
        count_max: u64,
    },
    /// Redis did not do what it was asked.
    #[error("{reason}")]
    Redis {
        /// What it said, and what to do.
        reason: String,
        /// Whether it will say the same again until somebody changes a setting.
        is_final: bool,
    },
    /// Another process works on a partition that this one worked on.
    #[error(
        "partition {partition} is not this worker's any more: another one has taken it over, or \
         its marks are gone from Redis"
    )]
    Fenced {
        /// Which partition.
        partition: u32,
    },
    /// Something of what a partition's worker wrote is lost.
    #[error(
        "the store has lost some of what partition {partition} had written; it is written again"
    )]
    Lost {
        /// Which partition.
        partition: u32,
    },
    /// The process is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether trying again cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Disk { .. }
            | Self::Poisoned { .. }
            | Self::Closed
            | Self::Fenced { .. }
            | Self::Lost { .. } => false,
            Self::Redis { is_final, .. } => *is_final,
            Self::InUse { .. } | Self::Damaged { .. } | Self::TooManyAccounts { .. } => true,
        }
    }
}
