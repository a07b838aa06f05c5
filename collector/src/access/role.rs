//! The roles that are always there. Others are made of permissions and stand in the database.

use super::permission::{Permission, Permissions};

/// A role that is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reading, reports and proofs.
    Auditor,
    /// Reading, exports and holds.
    Analyst,
    /// Reading, without what packs have marked as sensitive.
    Viewer,
    /// Enrolling agents, and nothing else.
    Enroll,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Admin, Self::Auditor, Self::Analyst, Self::Viewer, Self::Enroll];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Analyst => "analyst",
            Self::Viewer => "viewer",
            Self::Enroll => "enroll",
        }
    }

    /// From its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What it allows a reader.
    #[must_use]
    pub const fn permissions(self) -> Permissions {
        use Permission::{Export, Hold, Search, ViewRaw, ViewSensitive};
        match self {
            Self::Admin => Permissions::ALL,
            Self::Auditor => Permissions::of(&[Search, ViewRaw, ViewSensitive, Export]),
            Self::Analyst => Permissions::of(&[Search, ViewRaw, ViewSensitive, Export, Hold]),
            Self::Viewer => Permissions::of(&[Search, ViewRaw]),
            Self::Enroll => Permissions::of(&[]),
        }
    }
}
